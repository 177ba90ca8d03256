"""The routes of codes. All need a key, or show a user only their own, so that clients cannot guess codes by trying."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from aiohttp import web

from claimsvc import domain
from claimsvc.application import codes
from claimsvc.domain.problems import UNAVAILABLE
from claimsvc.http.framework import parameters
from claimsvc.http.framework.auth import only, only_users_and
from claimsvc.http.framework.idempotency import once_only, replayed
from claimsvc.http.framework.reasons import TakeBack
from claimsvc.http.framework.refusals import refused
from claimsvc.http.framework.routing import NEXT, Route, Success, ok, with_next_link
from claimsvc.http.framework.services import CALLER, SERVICES
from claimsvc.http.framework.streams import StreamingBody
from claimsvc.http.resources.codes import schemas as code_schemas
from claimsvc.http.resources.codes.uploads import CODES, rows_of
from claimsvc.http.server.observers import REQUEST_ID
from claimsvc.http.server.response import Reply
from claimsvc.http.server.wire import IDEMPOTENCY_KEY
from claimsvc.representations.code_files import Row
from claimsvc.representations.codes import CodeBody, CodesAddedBody, added_body, code_body
from claimsvc.representations.fields import Request


async def add_codes(
    request: web.Request, path: parameters.CouponPath, query: code_schemas.AddCodesQuery, upload: StreamingBody
) -> Reply:
    """Add codes to a coupon.

    Each line is `code` or `code,expires_at` (`text/csv`, where a heading with these names is optional), or
    `{"code": ..., "expires_at": ...}` (`application/x-ndjson`); at most 200000 rows and 32 MiB. Where the coupon has no
    type or no benefit, a code may have its own: as `type` and `benefit` in NDJSON; in CSV in the columns `type`,
    `percent_off`, `amount_off`, `currency` and `text`, which a heading must name. The coupon's amount
    becomes the number of units claimed so far plus the free codes, and each new claim gets a code. If you send a file
    again, the codes that it added before are rejected as `exists`.
    """
    services, caller, request_id = request.app[SERVICES], request[CALLER], request[REQUEST_ID]
    rows, atomic, uses = rows_of(upload), query.atomic == "true", query.uses

    async def add(key: domain.IdempotencyKey | None) -> object:
        # With a key the file is read first: its fingerprint decides whether this is a repetition.
        source = rows if key is None else _replay(buffered)
        return await codes.add(
            services.codes, caller, path.name, source, atomic=atomic, uses=uses, key=key, request_id=request_id
        )

    buffered = [part async for part in rows] if IDEMPOTENCY_KEY in request.headers else []
    # In a thread, because it takes a second for the longest files.
    rows_digest = await asyncio.to_thread(_digest, buffered)
    identity = _UploadIdentity(atomic=atomic, rows=rows_digest)
    if uses is not None:
        identity = _UploadWithUsesIdentity(atomic=atomic, rows=rows_digest, uses=uses)
    return _reply(await once_only(request, identity, add), request)


class _UploadIdentity(Request):
    """What the idempotency key's fingerprint of an upload covers."""

    atomic: bool
    rows: str


class _UploadWithUsesIdentity(_UploadIdentity):
    """The same of an upload with `uses`. Without them, the fingerprint is that of older versions."""

    uses: int


def _digest(parts: Sequence[Sequence[Row]]) -> str:
    """The digest of the rows. It must stay the same from version to version, so each field stands here by itself."""
    digest = hashlib.sha256()
    for part in parts:
        for row in part:
            if isinstance(row, domain.NewCode):
                text = f"NewCode(row={row.row!r}, code={row.code!r}, expires_at={row.expires_at!r})"
                if row.has_terms:
                    benefit = sorted(row.benefit.items()) if row.benefit is not None else None
                    text += f"(type={row.type!r}, benefit={benefit!r})"
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
            uses=body.uses,
            key=key,
            request_id=request_id,
        )

    return _reply(await once_only(request, body, generate), request)


_OF_ANYBODY = code_schemas.RedeemCode()


async def redeem_code(
    request: web.Request, path: code_schemas.CodePath, body: code_schemas.RedeemCode = _OF_ANYBODY
) -> Reply:
    """Redeem a claimed code. It can be redeemed `uses` times, usually once: of several concurrent requests, no more
    succeed.

    With `user_id`, it is redeemed only if that user's claim has it. If there is no such code, but just one that differs
    by case alone, that one is meant, here and wherever a path names a code.
    """
    services, caller, request_id = request.app[SERVICES], request[CALLER], request[REQUEST_ID]

    async def redeem(key: domain.IdempotencyKey | None) -> object:
        return await codes.redeem(
            services.codes, caller, path.code, user_id=body.user_id, key=key, request_id=request_id
        )

    return _reply(await once_only(request, body if body.user_id is not None else None, redeem), request)


async def unredeem_code(request: web.Request, path: code_schemas.CodePath, body: TakeBack) -> Reply:
    """Take back the last redemption of a code, which fell through. The code can be redeemed once more."""
    services, caller, request_id = request.app[SERVICES], request[CALLER], request[REQUEST_ID]

    async def unredeem(key: domain.IdempotencyKey | None) -> object:
        return await codes.unredeem(services.codes, caller, path.code, body.reason, key=key, request_id=request_id)

    return _reply(await once_only(request, body, unredeem), request)


async def validate_code(request: web.Request, path: code_schemas.CodePath, query: code_schemas.CheckQuery) -> Reply:
    """Ask what redeeming a code would result in. Nothing is changed.

    A user is told of the codes of their own claims; every other code is `unknown-code` to them.
    """
    found = await codes.check(request.app[SERVICES].codes, request[CALLER], path.code, query.user_id)
    if isinstance(found, domain.CodeCheck):
        return ok(code_schemas.check_body(found, request[CALLER]))
    return refused(found, request[REQUEST_ID])


async def list_codes(request: web.Request, path: parameters.CouponPath, query: code_schemas.CodesQuery) -> Reply:
    """List the codes of a coupon, in the order of their bytes."""
    found = await codes.of_coupon(
        request.app[SERVICES].codes, request[CALLER], path.name, after=query.after(), limit=query.limit + 1
    )
    if isinstance(found, domain.UnknownCoupon):
        return refused(found, request[REQUEST_ID])
    page = found[: query.limit]
    cursor = code_schemas.code_cursor(page[-1]) if len(found) > query.limit else None
    return with_next_link(request, ok(code_schemas.page_body(page, cursor, request[CALLER])), cursor)


async def get_code(request: web.Request, path: code_schemas.CodePath) -> Reply:
    """Read a code, with the claim that it belongs to; with its user, if the key has the scope `claims:read`."""
    code = await codes.get(request.app[SERVICES].codes, request[CALLER], path.code)
    if isinstance(code, domain.UnknownCode):
        return refused(code, request[REQUEST_ID])
    return ok(code_body(code, request[CALLER]))


async def count_codes(request: web.Request, query: code_schemas.CountsQuery) -> Reply:
    """Count the codes of a type: their own, or else that of their coupon."""
    coupon_type = query.type or None
    return ok(code_schemas.counts_body(coupon_type, await request.app[SERVICES].count_codes(coupon_type)))


def _reply(answer: Any, request: web.Request, request_id: str = "") -> Reply:
    if isinstance(answer, domain.CodesAdded):
        return ok(added_body(answer))
    if isinstance(answer, domain.Redeemed | domain.CodeUnredeemed):
        return ok(code_body(answer.code, request[CALLER]))
    if isinstance(answer, domain.Replayed):
        return replayed(_reply(answer.answer, request, answer.request_id))
    return refused(answer, request_id or request[REQUEST_ID])


ROUTES: tuple[Route, ...] = (
    Route(
        "POST",
        "/api/coupons/{name}/codes",
        add_codes,
        tag="codes",
        summary="Add codes to a coupon",
        success=Success(200, "The codes are added.", CodesAddedBody),
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
        success=Success(200, "The codes are added.", CodesAddedBody),
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
        success=Success(200, "The code is redeemed.", CodeBody),
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
        "POST",
        "/api/codes/{code}/unredeem",
        unredeem_code,
        tag="codes",
        summary="Take back a redemption of a code",
        success=Success(200, "The redemption is taken back.", CodeBody),
        refusals=(domain.UnknownCode, domain.NotRedeemed),
        problems=(UNAVAILABLE,),
        access=only(domain.Scope.CODES_REDEEM),
        keyed=True,
    ),
    Route(
        "GET",
        "/api/codes/{code}/validate",
        validate_code,
        tag="codes",
        summary="Ask whether a code can be redeemed",
        success=Success(200, "What redeeming it would result in.", code_schemas.CodeCheckBody),
        refusals=(domain.UnknownCode,),
        problems=(UNAVAILABLE,),
        access=only_users_and(domain.Scope.CODES_REDEEM),
    ),
    Route(
        "GET",
        "/api/coupons/{name}/codes",
        list_codes,
        tag="codes",
        summary="List a coupon's codes",
        success=Success(200, "A page of codes.", code_schemas.CodePageBody, headers=NEXT),
        refusals=(domain.UnknownCoupon,),
        problems=(UNAVAILABLE,),
        access=only(domain.Scope.CODES_READ),
    ),
    Route(
        "GET",
        "/api/codes/{code}",
        get_code,
        tag="codes",
        summary="Read a code",
        success=Success(200, "The code.", CodeBody),
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
