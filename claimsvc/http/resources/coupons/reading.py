"""The routes that look coupons up, and the claims of one."""

from aiohttp import web

from claimsvc import domain
from claimsvc.application import claims as claim_cases
from claimsvc.application import coupons as coupon_cases
from claimsvc.application.coupons import MAX_CLAIMANTS
from claimsvc.domain import Scope
from claimsvc.domain.problems import UNAVAILABLE
from claimsvc.http.framework import parameters, schemas
from claimsvc.http.framework.auth import SHOWS_USERS, unless_open
from claimsvc.http.framework.refusals import refused
from claimsvc.http.framework.routing import NEXT, Route, Success, ok, with_next
from claimsvc.http.framework.services import CALLER, SERVICES
from claimsvc.http.server.observers import REQUEST_ID
from claimsvc.http.server.response import Reply
from claimsvc.representations import coupons as campaign_schemas


async def list_coupons(request: web.Request, query: parameters.CouponsQuery) -> Reply:
    """One page of the coupons, by name."""
    found = await request.app[SERVICES].coupons.coupons(
        search=query.search or None, after=query.after(), limit=query.limit + 1
    )
    page = found[: query.limit]
    cursor = parameters.coupon_cursor(page[-1]) if len(found) > query.limit else None
    body = schemas.CouponPageBody([campaign_schemas.coupon_body(coupon) for coupon in page], cursor)
    return with_next(request, ok(body), cursor)


async def get_coupon(request: web.Request, path: parameters.CouponPath) -> Reply:
    """A coupon and who holds it."""
    found = await coupon_cases.get(request.app[SERVICES].coupons, request[CALLER], path.name)
    if isinstance(found, domain.UnknownCoupon):
        return refused(found, request[REQUEST_ID])
    return ok(campaign_schemas.campaign_detail_body(found))


async def get_coupon_named_claim(request: web.Request) -> Reply:
    """The coupon that is named `claim`, whose path is also that of claiming."""
    return await get_coupon(request, parameters.CouponPath(name="claim"))


async def list_claims(request: web.Request, path: parameters.CouponPath, query: parameters.ClaimsQuery) -> Reply:
    """One page of a coupon's claims, oldest first."""
    found = await claim_cases.of_coupon(
        request.app[SERVICES].claim_records, request[CALLER], path.name, after=query.after(), limit=query.limit + 1
    )
    if isinstance(found, domain.UnknownCoupon):
        return refused(found, request[REQUEST_ID])
    page = found[: query.limit]
    cursor = parameters.claim_cursor(page[-1]) if len(found) > query.limit else None
    body = schemas.ClaimPageBody([schemas.claim_body(claim) for claim in page], cursor)
    return with_next(request, ok(body), cursor)


_COUPON = Success(
    200,
    f"The coupon; `claimed_by` is oldest first, at most {MAX_CLAIMANTS}, and those that the caller may see.",
    campaign_schemas.CampaignDetailBody,
)


ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        "/api/coupons",
        list_coupons,
        tag="coupons",
        summary="List coupons by name",
        success=Success(200, "One page of the coupons.", schemas.CouponPageBody, headers=NEXT),
        problems=(UNAVAILABLE,),
    ),
    Route(
        "GET",
        "/api/coupons/{name}",
        get_coupon,
        tag="coupons",
        summary="Look a coupon and its claimants up",
        success=_COUPON,
        refusals=(domain.UnknownCoupon,),
        problems=(UNAVAILABLE,),
        access=SHOWS_USERS,
    ),
    Route(
        "GET",
        "/api/coupons/claim",
        get_coupon_named_claim,
        tag="coupons",
        summary="Look the coupon named `claim` up",
        success=_COUPON,
        refusals=(domain.UnknownCoupon,),
        problems=(UNAVAILABLE,),
        access=SHOWS_USERS,
    ),
    Route(
        "GET",
        "/api/coupons/{name}/claims",
        list_claims,
        tag="coupons",
        summary="List a coupon's claims, oldest first",
        success=Success(200, "One page of the claims.", schemas.ClaimPageBody, headers=NEXT),
        refusals=(domain.UnknownCoupon,),
        problems=(UNAVAILABLE,),
        access=unless_open(Scope.CLAIMS_READ),
    ),
)
