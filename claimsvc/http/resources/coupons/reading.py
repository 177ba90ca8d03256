"""The routes that read coupons and a coupon's claims."""

from aiohttp import web

from claimsvc import domain
from claimsvc.application import claims as claim_cases
from claimsvc.application import coupons as coupon_cases
from claimsvc.application.coupons import MAX_CLAIMANTS
from claimsvc.domain import Scope
from claimsvc.domain.problems import UNAVAILABLE
from claimsvc.http.framework import parameters, schemas
from claimsvc.http.framework.auth import SHOWS_USERS, only_with_tokens
from claimsvc.http.framework.refusals import refused
from claimsvc.http.framework.routing import NEXT, Route, Success, ok, with_next_link
from claimsvc.http.framework.services import CALLER, SERVICES
from claimsvc.http.server.observers import REQUEST_ID
from claimsvc.http.server.response import Reply
from claimsvc.representations import coupons as campaign_schemas
from claimsvc.representations.claims import listed_claim_body


async def list_coupons(request: web.Request, query: parameters.CouponsQuery) -> Reply:
    """List coupons, ordered by name. Archived coupons are left out, unless `state` names them."""
    found = await coupon_cases.listed(
        request.app[SERVICES].coupons, query.filter(), after=query.after(), limit=query.limit + 1
    )
    page = found[: query.limit]
    cursor = parameters.coupon_cursor(page[-1].coupon) if len(found) > query.limit else None
    body = schemas.CouponPageBody([campaign_schemas.listed_coupon_body(each) for each in page], cursor)
    return with_next_link(request, ok(body), cursor)


async def get_coupon(request: web.Request, path: parameters.CouponPath) -> Reply:
    """Read a coupon and its claimants."""
    found = await coupon_cases.get(request.app[SERVICES].coupons, request[CALLER], path.name)
    if isinstance(found, domain.UnknownCoupon):
        return refused(found, request[REQUEST_ID])
    return ok(campaign_schemas.campaign_detail_body(found))


async def get_coupon_named_claim(request: web.Request) -> Reply:
    """Read the coupon named `claim`, whose path is also the path of claiming."""
    return await get_coupon(request, parameters.CouponPath(name="claim"))


async def list_claims(request: web.Request, path: parameters.CouponPath, query: parameters.ClaimsQuery) -> Reply:
    """List a coupon's claims, oldest first; with their codes, if the request has a key with the scope `codes:read`."""
    found = await claim_cases.of_coupon(
        request.app[SERVICES].claim_records, request[CALLER], path.name, after=query.last(), limit=query.limit + 1
    )
    if isinstance(found, domain.UnknownCoupon):
        return refused(found, request[REQUEST_ID])
    page = found[: query.limit]
    cursor = parameters.claim_cursor(page[-1]) if len(found) > query.limit else None
    shows_code = request[CALLER].sees_codes
    body = schemas.ClaimPageBody([listed_claim_body(claim, shows_code=shows_code) for claim in page], cursor)
    return with_next_link(request, ok(body), cursor)


_COUPON = Success(
    200,
    f"The coupon; `claimed_by` lists the first {MAX_CLAIMANTS} claimants that the caller may see, oldest first, of "
    "`claimed_count`.",
    campaign_schemas.CampaignDetailBody,
)


ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        "/api/coupons",
        list_coupons,
        tag="coupons",
        summary="List coupons by name",
        success=Success(200, "A page of coupons.", schemas.CouponPageBody, headers=NEXT),
        problems=(UNAVAILABLE,),
    ),
    Route(
        "GET",
        "/api/coupons/{name}",
        get_coupon,
        tag="coupons",
        summary="Read a coupon and its claimants",
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
        summary="Read the coupon named `claim`",
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
        success=Success(200, "A page of claims.", schemas.ClaimPageBody, headers=NEXT),
        refusals=(domain.UnknownCoupon,),
        problems=(UNAVAILABLE,),
        access=only_with_tokens(Scope.CLAIMS_READ),
    ),
)
