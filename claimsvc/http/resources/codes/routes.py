"""The routes of codes. All need a key, so that clients cannot guess codes by trying."""

import asyncio
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
    """Add codes to a coupon.

    Each line is `code` or `code,expires_at` (`text/csv`, where a heading with these names is optional), or
    `{"code": ..., "expires_at": ...}` (`application/x-ndjson`); at most 200000 rows and 32 MiB. The coupon's amount
    becomes the number of units claimed so far plus the free codes, and each new claim gets a code. If you send a file
    again, the codes that it added before are rejected as `exists`.
    """
    services, caller, request_id = request.app[SERVICES], request[CALLER], request[REQUEST_ID]
    rows, atomic = rows_of(upload), query.atomic == "true"

    async def add(key: domain.IdempotencyKey | None) -> object:
        # With a key the file is read first: its fingerprint decides whether this is a repetition.
        source = rows if key is None else _replay(buffered)
        return await codes.add(services.codes, caller, path.name, source, atomic=atomic, key=key, request_id=request_id)

    buffered = [part async for part in rows] if IDEMPOTENCY_KEY in request.headers else []
    # In a thread, because it takes a second for the longest files.
    rows_digest = await asyncio.to_thread(_digest, buffered)
    return _reply(await once_only(request, _UploadIdentity(atomic=atomic, rows=rows_digest), add), request_id)


class _UploadIdentity(Request):
    """What the idempotency key's fingerprint of an upload covers."""

    atomic: bool
    rows: str


def _digest(parts: Sequence[Sequence[Row]]) -> str:
    """The digest of the rows. It must stay the same from version to version, so each field stands here by itself."""
    digest = hashlib.sha256()
    for part in parts:
        for row in part:
            if isinstance(row, domain.NewCode):
                text = f"NewCode(row={row.row!r}, code={row.code!r}, expires_at={row.expires_at!r})"
            else:
                text = f"RefusedRow(row={row.row!r}, code={row.code!r}, reason={row.reason!r})"
            digest.update(text.encode())
    return digest.hexdigest()


async def _replay(parts: Sequence[Sequence[Row]]) -> AsyncIterator[Sequence[Row]]:
    for part in parts:
        yield part


async def generate_codes(request: web.Request, path: parameters.CouponPath, body: code_schemas.GenerateCodes) -> Reply:
    """Generate random codes and add them to a coupon. Without an idempotency key, each request generates further
    codes."""
    services, caller, request_id = request.app[SERVICES], request[CALLER], request[REQUEST_ID]

    async def generate(key: domain.IdempotencyKey | None) -> object:
        return await codes.generate(
            services.codes,
            caller,
            path.name,
            body.count,
            body.pattern,
            body.expires_at,
            key=key,
            request_id=request_id,
        )

    return _reply(await once_only(request, body, generate), request_id)


_OF_ANYBODY = code_schemas.RedeemCode()


async def redeem_code(
    request: web.Request, path: code_schemas.CodePath, body: code_schemas.RedeemCode = _OF_ANYBODY
) -> Reply:
    """Redeem a claimed code. A code can be redeemed once: of several concurrent requests, one succeeds.

    With `user_id`, it is redeemed only if that user's claim has it.
    """
    services, caller, request_id = request.app[SERVICES], request[CALLER], request[REQUEST_ID]

    async def redeem(key: domain.IdempotencyKey | None) -> object:
        return await codes.redeem(
            services.codes, caller, path.code, user_id=body.user_id, key=key, request_id=request_id
        )

    return _reply(await once_only(request, body if body.user_id is not None else None, redeem), request_id)


async def get_code(request: web.Request, path: code_schemas.CodePath) -> Reply:
    """Read a code, with the claim that it belongs to."""
    code = await codes.get(request.app[SERVICES].codes, request[CALLER], path.code)
    if isinstance(code, domain.UnknownCode):
        return refused(code, request[REQUEST_ID])
    return ok(code_schemas.code_body(code))


async def count_codes(request: web.Request, query: code_schemas.CountsQuery) -> Reply:
    """Count the codes of a type of coupons."""
    coupon_type = query.type or None
    return ok(code_schemas.counts_body(coupon_type, await request.app[SERVICES].count_codes(coupon_type)))


def _reply(answer: Any, request_id: str) -> Reply:
    if isinstance(answer, domain.CodesAdded):
        return ok(code_schemas.added_body(answer))
    if isinstance(answer, domain.Redeemed):
        return ok(code_schemas.code_body(answer.code))
    if isinstance(answer, domain.Replayed):
        return replayed(_reply(answer.answer, answer.request_id))
    return refused(answer, request_id)


ROUTES: tuple[Route, ...] = (
    Route(
        "POST",
        "/api/coupons/{name}/codes",
        add_codes,
        tag="codes",
        summary="Add codes to a coupon",
        success=Success(200, "The codes are added.", code_schemas.CodesAddedBody),
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
        summary="Generate codes for a coupon",
        success=Success(200, "The codes are added.", code_schemas.CodesAddedBody),
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
        success=Success(200, "The code is redeemed.", code_schemas.CodeBody),
        refusals=(
            domain.UnknownCode,
            domain.NotYourClaim,
            domain.AlreadyRedeemed,
            domain.CodeNotClaimed,
            domain.CodeExpired,
        ),
        problems=(UNAVAILABLE,),
        access=only(domain.Scope.CODES_REDEEM),
        keyed=True,
    ),
    Route(
        "GET",
        "/api/codes/{code}",
        get_code,
        tag="codes",
        summary="Read a code",
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
