"""The API's routes. Each handler parses, asks, and renders: from here, `strategy` and `storage` lead to the SQL."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from aiohttp import web

from claimsvc import domain
from claimsvc.application import claims as claim_cases
from claimsvc.application import coupons as coupon_cases
from claimsvc.domain import Scope
from claimsvc.http.framework import outcomes, parameters, schemas
from claimsvc.http.framework.auth import SHOWS_USERS, unless_open, users_and
from claimsvc.http.framework.idempotency import once_only, replayed
from claimsvc.http.framework.rate_limit import DOCUMENTED, within_quota
from claimsvc.http.framework.routing import NEXT, Route, Success, created, ok, with_next
from claimsvc.http.framework.services import CALLER, SERVICES
from claimsvc.http.resources.audit import routes as audit
from claimsvc.http.resources.claims import transitions
from claimsvc.http.resources.codes import routes as codes
from claimsvc.http.resources.console import routes as console
from claimsvc.http.resources.coupons import routes as campaigns
from claimsvc.http.resources.coupons import schemas as campaign_schemas
from claimsvc.http.resources.eligibility import routes as eligibility
from claimsvc.http.resources.exports import routes as exports
from claimsvc.http.resources.locks import routes as locks
from claimsvc.http.resources.operations import routes as operations
from claimsvc.http.resources.users import routes as users
from claimsvc.http.server import problems
from claimsvc.http.server.access_log import CLAIM, Claim
from claimsvc.http.server.observers import REQUEST_ID
from claimsvc.http.server.response import Reply
from claimsvc.ports import AnyClaims, ClaimAnswer

_NOTHING: Mapping[str, Any] = MappingProxyType({})


@within_quota
async def claim_coupon(request: web.Request, body: schemas.ClaimCoupon) -> Reply:
    """Claim one unit of a coupon for a user, for good or, with `hold_seconds`, until it is confirmed. Without
    `coupon_name` it is the oldest coupon that can be claimed, of the `type` if there is one.

    A hold that is asked for again goes on as it was, and one that is asked for as a claim is confirmed: both are
    answered 200.
    """

    def begin(once: domain.Once | None) -> ClaimAnswer:
        answer = begin_claim(request.app[SERVICES].strategy, body, once, request[CALLER].token)
        request[CLAIM] = Claim(body.coupon_name or None, answer)
        return answer

    return claim_reply(await once_only(request, body, begin), request[REQUEST_ID])


def begin_claim(
    claims: AnyClaims,
    asked: schemas.ClaimCoupon,
    once: domain.Once | None = None,
    token: Mapping[str, Any] = _NOTHING,
) -> ClaimAnswer:
    """The answer, to come, to what is asked.

    Args:
        token: what the user's token says.

    Raises:
        RefusedError: it names both a coupon and a type.
    """
    if asked.coupon_name and asked.type:
        raise problems.bad_body("Name a coupon or a type, not both.", pointer="#/type")
    want = want_of(asked, once, token)
    return claim_cases.begin(claims, asked.user_id, asked.coupon_name or None, asked.type or None, want)


def want_of(
    asked: schemas.ClaimCoupon, once: domain.Once | None = None, token: Mapping[str, Any] = _NOTHING
) -> domain.Want | None:
    """What is asked for beyond a unit; None for the usual claim."""
    if asked.hold_seconds is None and once is None and not asked.attributes and not token:
        return None
    return domain.Want(
        hold_seconds=asked.hold_seconds,
        once=once,
        attributes=asked.attributes or {},
        token=domain.attributes_of(token),
    )


def claim_reply(outcome: domain.Outcome, request_id: str) -> Reply:
    """What a claim is answered."""
    if isinstance(outcome, domain.Claimed):
        return created(schemas.claim_body(outcome.claim), f"/api/claims/{outcome.claim.id}")
    if isinstance(outcome, domain.HoldContinued):
        return ok(schemas.claim_body(outcome.claim))
    if isinstance(outcome, domain.Replayed):
        return replayed(claim_reply(outcome.answer, outcome.request_id))
    return outcomes.from_outcome(outcome, request_id)


async def list_coupons(request: web.Request, query: parameters.CouponsQuery) -> Reply:
    """One page of the coupons, by name."""
    found = await request.app[SERVICES].storage.coupons(
        search=query.search or None, after=query.after(), limit=query.limit + 1
    )
    page = found[: query.limit]
    cursor = parameters.coupon_cursor(page[-1]) if len(found) > query.limit else None
    body = schemas.CouponPageBody([schemas.coupon_body(coupon) for coupon in page], cursor)
    return with_next(request, ok(body), cursor)


async def get_coupon(request: web.Request, path: parameters.CouponPath) -> Reply:
    """A coupon and who holds it."""
    found = await coupon_cases.get(request.app[SERVICES].storage, request[CALLER], path.name)
    if isinstance(found, domain.UnknownCoupon):
        return outcomes.from_outcome(found, request[REQUEST_ID])
    return ok(campaign_schemas.campaign_detail_body(found))


async def get_coupon_named_claim(request: web.Request) -> Reply:
    """The coupon that is named `claim`, whose path is also that of claiming."""
    return await get_coupon(request, parameters.CouponPath(name="claim"))


async def list_claims(request: web.Request, path: parameters.CouponPath, query: parameters.ClaimsQuery) -> Reply:
    """One page of a coupon's claims, oldest first."""
    found = await claim_cases.of_coupon(
        request.app[SERVICES].storage, request[CALLER], path.name, after=query.after(), limit=query.limit + 1
    )
    if isinstance(found, domain.UnknownCoupon):
        return outcomes.from_outcome(found, request[REQUEST_ID])
    page = found[: query.limit]
    cursor = parameters.claim_cursor(page[-1]) if len(found) > query.limit else None
    body = schemas.ClaimPageBody([schemas.claim_body(claim) for claim in page], cursor)
    return with_next(request, ok(body), cursor)


async def get_claim(request: web.Request, path: parameters.ClaimPath) -> Reply:
    """One claim."""
    found = await claim_cases.get(request.app[SERVICES].storage, request[CALLER], path.id)
    if isinstance(found, domain.Claim):
        return ok(schemas.claim_body(found))
    return outcomes.from_outcome(found, request[REQUEST_ID])


_LOCATION = {"Location": "the path of what was made"}
_COUPON = Success(
    200,
    f"The coupon; `claimed_by` is oldest first, at most {schemas.MAX_CLAIMANTS}, and those that the caller may see.",
    campaign_schemas.CampaignDetailBody,
)
# What can be asked next, for clients and test programs that follow links.
_OF_A_CLAIM: dict[str, dict[str, Any]] = {
    "self": {"operationId": "get_claim", "parameters": {"id": "$response.body#/id"}},
    "coupon": {"operationId": "get_coupon", "parameters": {"name": "$response.body#/coupon_name"}},
    "claims": {"operationId": "list_claims", "parameters": {"name": "$response.body#/coupon_name"}},
}

CLAIM_PATH = "/api/coupons/claim"

ROUTES: tuple[Route, ...] = (
    Route(
        "POST",
        CLAIM_PATH,
        claim_coupon,
        tag="claims",
        summary="Claim one unit of a coupon",
        success=Success(
            201, "The claim is committed.", schemas.ClaimBody, headers={**_LOCATION, **DOCUMENTED}, links=_OF_A_CLAIM
        ),
        problems=(
            problems.UNKNOWN_COUPON,
            problems.ALREADY_CLAIMED,
            problems.SOLD_OUT,
            problems.NOT_STARTED,
            problems.ENDED,
            problems.PAUSED,
            problems.NOT_ELIGIBLE,
            problems.QUOTA_EXCEEDED,
            problems.LOCK_BUSY,
            problems.UNAVAILABLE,
        ),
        access=users_and(Scope.CLAIMS_WRITE),
        keyed=True,
    ),
    Route(
        "GET",
        "/api/claims/{id}",
        get_claim,
        tag="claims",
        summary="Look a claim up",
        success=Success(200, "The claim.", schemas.ClaimBody),
        problems=(problems.UNKNOWN_CLAIM, problems.UNAVAILABLE),
        access=users_and(Scope.CLAIMS_READ),
    ),
    Route(
        "GET",
        "/api/coupons",
        list_coupons,
        tag="coupons",
        summary="List coupons by name",
        success=Success(200, "One page of the coupons.", schemas.CouponPageBody, headers=NEXT),
        problems=(problems.UNAVAILABLE,),
    ),
    Route(
        "GET",
        "/api/coupons/{name}",
        get_coupon,
        tag="coupons",
        summary="Look a coupon and its claimants up",
        success=_COUPON,
        problems=(problems.UNKNOWN_COUPON, problems.UNAVAILABLE),
        access=SHOWS_USERS,
    ),
    Route(
        "GET",
        CLAIM_PATH,
        get_coupon_named_claim,
        tag="coupons",
        summary="Look the coupon named `claim` up",
        success=_COUPON,
        problems=(problems.UNKNOWN_COUPON, problems.UNAVAILABLE),
        access=SHOWS_USERS,
    ),
    Route(
        "GET",
        "/api/coupons/{name}/claims",
        list_claims,
        tag="coupons",
        summary="List a coupon's claims, oldest first",
        success=Success(200, "One page of the claims.", schemas.ClaimPageBody, headers=NEXT),
        problems=(problems.UNKNOWN_COUPON, problems.UNAVAILABLE),
        access=unless_open(Scope.CLAIMS_READ),
    ),
    *campaigns.ROUTES,
    *transitions.ROUTES,
    *codes.ROUTES,
    *eligibility.ROUTES,
    *locks.ROUTES,
    *audit.ROUTES,
    *exports.ROUTES,
    *users.ROUTES,
    *operations.ROUTES,
    *console.ROUTES,
)
