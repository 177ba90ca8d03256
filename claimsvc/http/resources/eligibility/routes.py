"""The routes that check eligibility, and that replace and delete allow and deny lists."""

from collections.abc import AsyncIterator, Sequence

from aiohttp import web

from claimsvc import domain
from claimsvc.application import eligibility
from claimsvc.domain.problems import BAD_REQUEST, QUOTA_EXCEEDED, UNAVAILABLE
from claimsvc.http.framework import parameters
from claimsvc.http.framework.auth import only, users_and
from claimsvc.http.framework.idempotency import once_only, replayed
from claimsvc.http.framework.problem_bodies import reason_body
from claimsvc.http.framework.rate_limit import DOCUMENTED, within_quota
from claimsvc.http.framework.refusals import refused
from claimsvc.http.framework.routing import Route, Success, ok
from claimsvc.http.framework.services import CALLER, SERVICES
from claimsvc.http.framework.streams import Streamed, StreamingBody
from claimsvc.http.resources.eligibility import schemas as eligibility_schemas
from claimsvc.http.server import problems
from claimsvc.http.server.observers import REQUEST_ID
from claimsvc.http.server.problems import BodyError
from claimsvc.http.server.response import Reply
from claimsvc.representations.user_lists import BadListError, ListFormat, ListReader

_MAX_LIST_BYTES = 64 * 1024 * 1024


@within_quota
async def check_eligibility(
    request: web.Request, path: parameters.CouponPath, body: eligibility_schemas.CheckEligibility
) -> Reply:
    """Check whether a user could claim a coupon now. If not, the response lists all reasons. Nothing is claimed."""
    audience, caller = request.app[SERVICES].audience, request[CALLER]

    async def check(key: domain.IdempotencyKey | None) -> object:
        return await eligibility.check(audience, caller, path.name, body.user_id, body.attributes or {}, key=key)

    return _checked(await once_only(request, body, check), request[REQUEST_ID])


def _checked(
    found: domain.Eligibility | domain.UnknownCoupon | domain.Replayed | domain.KeyReused, request_id: str
) -> Reply:
    if isinstance(found, domain.Eligibility):
        reasons = [reason_body(reason) for reason in found.reasons]
        return ok(eligibility_schemas.EligibilityBody(not reasons, reasons))
    if isinstance(found, domain.Replayed):
        return replayed(_checked(found.answer, found.request_id))
    return refused(found, request_id)


async def put_allow_list(request: web.Request, path: parameters.CouponPath, upload: StreamingBody) -> Reply:
    """Replace the allow list: only users on it may claim the coupon. Claims see the old list or the new one, never a
    mixture of both."""
    return await _put(request, path.name, domain.ListKind.ALLOW, upload)


async def put_deny_list(request: web.Request, path: parameters.CouponPath, upload: StreamingBody) -> Reply:
    """Replace the deny list: users on it may not claim the coupon. Claims see the old list or the new one, never a
    mixture of both."""
    return await _put(request, path.name, domain.ListKind.DENY, upload)


async def delete_allow_list(request: web.Request, path: parameters.CouponPath) -> Reply:
    """Delete the allow list: every user whom the coupon's rules and deny list admit may claim it."""
    return await _delete(request, path.name, domain.ListKind.ALLOW)


async def delete_deny_list(request: web.Request, path: parameters.CouponPath) -> Reply:
    """Delete the deny list: only the coupon's rules and allow list exclude users."""
    return await _delete(request, path.name, domain.ListKind.DENY)


async def _put(request: web.Request, name: str, kind: domain.ListKind, upload: StreamingBody) -> Reply:
    audience, caller, request_id = request.app[SERVICES].audience, request[CALLER], request[REQUEST_ID]
    replaced = await eligibility.replace_list(audience, caller, name, kind, _users(upload), request_id=request_id)
    return _reply(replaced, request)


async def _delete(request: web.Request, name: str, kind: domain.ListKind) -> Reply:
    audience, caller, request_id = request.app[SERVICES].audience, request[CALLER], request[REQUEST_ID]
    return _reply(await eligibility.remove_list(audience, caller, name, kind, request_id=request_id), request)


async def _users(upload: StreamingBody) -> AsyncIterator[Sequence[str]]:
    reader = ListReader(ListFormat(upload.content_type))
    try:
        async for piece in upload.pieces():
            yield reader.feed(piece)
        yield reader.end()
    except BadListError as error:
        errors = [BodyError(line, "#") for line in error.lines]
        raise problems.RefusedError(BAD_REQUEST, errors=errors, close=True) from None


def _reply(replaced: domain.ListReplaced | domain.UnknownCoupon, request: web.Request) -> Reply:
    if isinstance(replaced, domain.UnknownCoupon):
        return refused(replaced, request[REQUEST_ID])
    return ok(eligibility_schemas.ListBody(replaced.coupon_name, replaced.kind, replaced.users))


_ID = "[!-~]{1,255}"
_LIST = Streamed(
    {
        ListFormat.LINES: {
            "schema": {"type": "string", "pattern": rf"^{_ID}(\r?\n{_ID})*(\r?\n)?$"},
            "example": "user-1\nuser-2\n",
        },
        ListFormat.CSV: {
            "schema": {
                "type": "string",
                "pattern": r"^user_id(\r?\n[!#-+\--~]{1,255})+(\r?\n)?$",
                "description": "the column `user_id`; further columns are ignored",
            },
            "example": "user_id\nuser-1\nuser-2\n",
        },
        ListFormat.NDJSON: {"schema": {"type": "string", "description": "each line is an object with `user_id`"}},
    },
    _MAX_LIST_BYTES,
)

ROUTES: tuple[Route, ...] = (
    Route(
        "POST",
        "/api/coupons/{name}/eligibility",
        check_eligibility,
        tag="claims",
        summary="Check a user's eligibility",
        success=Success(
            200, "Whether the user is eligible, and why not.", eligibility_schemas.EligibilityBody, headers=DOCUMENTED
        ),
        refusals=(domain.UnknownCoupon,),
        problems=(QUOTA_EXCEEDED, UNAVAILABLE),
        access=users_and(domain.Scope.CLAIMS_WRITE),
        keyed=True,
    ),
    Route(
        "PUT",
        "/api/coupons/{name}/allow-list",
        put_allow_list,
        tag="coupons",
        summary="Replace a coupon's allow list",
        success=Success(200, "The list is in force.", eligibility_schemas.ListBody),
        refusals=(domain.UnknownCoupon,),
        problems=(UNAVAILABLE,),
        access=only(domain.Scope.COUPONS_WRITE),
        streamed=_LIST,
    ),
    Route(
        "PUT",
        "/api/coupons/{name}/deny-list",
        put_deny_list,
        tag="coupons",
        summary="Replace a coupon's deny list",
        success=Success(200, "The list is in force.", eligibility_schemas.ListBody),
        refusals=(domain.UnknownCoupon,),
        problems=(UNAVAILABLE,),
        access=only(domain.Scope.COUPONS_WRITE),
        streamed=_LIST,
    ),
    Route(
        "DELETE",
        "/api/coupons/{name}/allow-list",
        delete_allow_list,
        tag="coupons",
        summary="Delete a coupon's allow list",
        success=Success(200, "The coupon has no allow list.", eligibility_schemas.ListBody),
        refusals=(domain.UnknownCoupon,),
        problems=(UNAVAILABLE,),
        access=only(domain.Scope.COUPONS_WRITE),
    ),
    Route(
        "DELETE",
        "/api/coupons/{name}/deny-list",
        delete_deny_list,
        tag="coupons",
        summary="Delete a coupon's deny list",
        success=Success(200, "The coupon has no deny list.", eligibility_schemas.ListBody),
        refusals=(domain.UnknownCoupon,),
        problems=(UNAVAILABLE,),
        access=only(domain.Scope.COUPONS_WRITE),
    ),
)
