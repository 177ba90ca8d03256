"""The routes of codes: each is for holders of keys alone, so that nobody finds a code by trying."""

import hashlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from aiohttp import web

from claimsvc import domain
from claimsvc.application import codes
from claimsvc.domain.problems import UNAVAILABLE
from claimsvc.http.framework import parameters
from claimsvc.http.framework.auth import only
from claimsvc.http.framework.idempotency import once_only, replayed
from claimsvc.http.framework.refusals import refused
from claimsvc.http.framework.routing import Route, Success, ok
from claimsvc.http.framework.services import CALLER, SERVICES
from claimsvc.http.framework.streams import StreamingBody
from claimsvc.http.resources.codes import schemas as code_schemas
from claimsvc.http.resources.codes.uploads import CODES, rows_of
from claimsvc.http.server.observers import REQUEST_ID
from claimsvc.http.server.response import Reply
from claimsvc.http.server.wire import IDEMPOTENCY_KEY
from claimsvc.representations.code_files import Row
from claimsvc.representations.fields import Request


async def add_codes(
    request: web.Request, path: parameters.CouponPath, query: code_schemas.AddCodesQuery, upload: StreamingBody
) -> Reply:
    """Add codes to a coupon: `text/csv` with `code` or `code,expires_at` a line, or `application/x-ndjson` with
    `{"code": ..., "expires_at": ...}` a line. Its amount becomes what is claimed already and its codes, and each claim
    from now on is given one. At most 200000 rows and 32 MiB; sent again, what was added is rejected as `exists`."""
    services, caller, request_id = request.app[SERVICES], request[CALLER], request[REQUEST_ID]
    rows, atomic = rows_of(upload), query.atomic == "true"

    async def add(once: domain.IdempotencyKey | None) -> object:
        # Under a key nothing is done before it is known whether this is the same file as before.
        come = rows if once is None else _all_at_once(kept)
        return await codes.add(services.codes, caller, path.name, come, atomic=atomic, once=once, request_id=request_id)

    kept = [part async for part in rows] if IDEMPOTENCY_KEY in request.headers else []
    return _told(await once_only(request, _Asked(atomic=atomic, rows=_digest(kept)), add), request_id)


class _Asked(Request):
    """What makes a file of codes the same as another."""

    atomic: bool
    rows: str


def _digest(parts: Sequence[Sequence[Row]]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        for row in part:
            digest.update(repr(row).encode())
    return digest.hexdigest()


async def _all_at_once(parts: Sequence[Sequence[Row]]) -> AsyncIterator[Sequence[Row]]:
    for part in parts:
        yield part


async def generate_codes(request: web.Request, path: parameters.CouponPath, body: code_schemas.GenerateCodes) -> Reply:
    """Make codes at random, and add them to a coupon. Sent again, it makes as many again."""
    services, caller, request_id = request.app[SERVICES], request[CALLER], request[REQUEST_ID]

    async def generate(once: domain.IdempotencyKey | None) -> object:
        return await codes.generate(
            services.codes,
            caller,
            path.name,
            body.count,
            body.pattern,
            body.expires_at,
            once=once,
            request_id=request_id,
        )

    return _told(await once_only(request, body, generate), request_id)


async def redeem_code(request: web.Request, path: code_schemas.CodePath) -> Reply:
    """Use a code that a claim has. It can be done once: of several who try at the same time, one succeeds."""
    services, caller, request_id = request.app[SERVICES], request[CALLER], request[REQUEST_ID]

    async def redeem(once: domain.IdempotencyKey | None) -> object:
        return await codes.redeem(services.codes, caller, path.code, once=once, request_id=request_id)

    return _told(await once_only(request, None, redeem), request_id)


async def get_code(request: web.Request, path: code_schemas.CodePath) -> Reply:
    """A code, and whose it is."""
    code = await codes.get(request.app[SERVICES].codes, request[CALLER], path.code)
    if isinstance(code, domain.UnknownCode):
        return refused(code, request[REQUEST_ID])
    return ok(code_schemas.code_body(code))


async def count_codes(request: web.Request, query: code_schemas.CountsQuery) -> Reply:
    """How many codes there are of a type of coupons."""
    coupon_type = query.type or None
    return ok(code_schemas.counts_body(coupon_type, await request.app[SERVICES].count_codes(coupon_type)))


def _told(answer: Any, request_id: str) -> Reply:
    if isinstance(answer, domain.CodesAdded):
        return ok(code_schemas.added_body(answer))
    if isinstance(answer, domain.Redeemed):
        return ok(code_schemas.code_body(answer.code))
    if isinstance(answer, domain.Replayed):
        return replayed(_told(answer.answer, answer.request_id))
    return refused(answer, request_id)


ROUTES: tuple[Route, ...] = (
    Route(
        "POST",
        "/api/coupons/{name}/codes",
        add_codes,
        tag="codes",
        summary="Add codes to a coupon",
        success=Success(200, "They are added.", code_schemas.CodesAddedBody),
        refusals=(domain.RowsRefused, domain.UnknownCoupon),
        problems=(UNAVAILABLE,),
        access=only(domain.Scope.CODES_WRITE),
        keyed=True,
        streamed=CODES,
    ),
    Route(
        "POST",
        "/api/coupons/{name}/codes/generate",
        generate_codes,
        tag="codes",
        summary="Make codes for a coupon",
        success=Success(200, "They are added.", code_schemas.CodesAddedBody),
        refusals=(domain.UnknownCoupon, domain.PatternTooSmall, domain.CodeExpired),
        problems=(UNAVAILABLE,),
        access=only(domain.Scope.CODES_WRITE),
        keyed=True,
    ),
    Route(
        "POST",
        "/api/codes/{code}/redeem",
        redeem_code,
        tag="codes",
        summary="Redeem a code",
        success=Success(200, "It is redeemed.", code_schemas.CodeBody),
        refusals=(domain.UnknownCode, domain.AlreadyRedeemed, domain.CodeNotClaimed, domain.CodeExpired),
        problems=(UNAVAILABLE,),
        access=only(domain.Scope.CODES_REDEEM),
        keyed=True,
    ),
    Route(
        "GET",
        "/api/codes/{code}",
        get_code,
        tag="codes",
        summary="Look a code up",
        success=Success(200, "The code.", code_schemas.CodeBody),
        refusals=(domain.UnknownCode,),
        problems=(UNAVAILABLE,),
        access=only(domain.Scope.CODES_READ),
    ),
    Route(
        "GET",
        "/api/codes",
        count_codes,
        tag="codes",
        summary="Count codes",
        success=Success(200, "The counts.", code_schemas.CodeCountsBody),
        problems=(UNAVAILABLE,),
        access=only(domain.Scope.CODES_READ),
    ),
)
