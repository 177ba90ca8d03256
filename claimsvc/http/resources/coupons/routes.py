"""The routes of whoever offers coupons; each asks for a key."""

from aiohttp import web

from claimsvc import domain
from claimsvc.application import coupons
from claimsvc.domain.problems import UNAVAILABLE
from claimsvc.http.framework import parameters
from claimsvc.http.framework.auth import only
from claimsvc.http.framework.idempotency import once_only, replayed
from claimsvc.http.framework.refusals import refused
from claimsvc.http.framework.routing import Route, Success, created, ok
from claimsvc.http.framework.services import CALLER, SERVICES
from claimsvc.http.server.observers import REQUEST_ID
from claimsvc.http.server.response import Reply
from claimsvc.ports import ChangeAnswer
from claimsvc.representations import coupons as campaign_schemas


async def create_coupon(request: web.Request, body: campaign_schemas.CreateCoupon) -> Reply:
    """Offer a new coupon."""
    campaign = body.campaign()
    services, caller, request_id = request.app[SERVICES], request[CALLER], request[REQUEST_ID]

    async def create(once: domain.IdempotencyKey | None) -> object:
        return await coupons.create(
            services.campaigns,
            caller,
            body.name,
            body.amount,
            body.strategy,
            campaign,
            once=once,
            request_id=request_id,
        )

    made = await once_only(request, body, create)
    if isinstance(made, domain.Coupon) and (live := request.app[SERVICES].live):
        live.coupon_created(made)
    return _made(made, campaign, request[REQUEST_ID])


def _made(
    made: domain.Coupon | domain.CouponExists | domain.PeriodIsEmpty | domain.Replayed | domain.KeyReused,
    campaign: domain.Campaign,
    request_id: str,
) -> Reply:
    if isinstance(made, domain.Coupon):
        return created(campaign_schemas.campaign_body(made, campaign), f"/api/coupons/{made.name}")
    if isinstance(made, domain.Replayed):
        return replayed(_made(made.answer, campaign, made.request_id))
    return refused(made, request_id)


async def change_coupon(
    request: web.Request, path: parameters.CouponPath, body: campaign_schemas.ChangeCoupon
) -> Reply:
    """Change a coupon's amount or rules; what is left out stays. Claims before it see the old, claims after it the new.

    The amount never falls below what is claimed or held.
    """
    changed = await coupons.change(
        request.app[SERVICES].campaigns, request[CALLER], path.name, body.change(), request_id=request[REQUEST_ID]
    )
    return _changed(changed, request[REQUEST_ID])


async def change_coupon_named_claim(request: web.Request, body: campaign_schemas.ChangeCoupon) -> Reply:
    """Change the coupon that is named `claim`, whose path is also that of claiming."""
    return await change_coupon(request, parameters.CouponPath(name="claim"), body)


async def archive_coupon(request: web.Request, path: parameters.CouponPath) -> Reply:
    """Close a coupon for good: it can be claimed no more, and is left out of the listing. Its claims stay."""
    services, caller, request_id = request.app[SERVICES], request[CALLER], request[REQUEST_ID]

    async def archive(once: domain.IdempotencyKey | None) -> object:
        return await coupons.archive(services.campaigns, caller, path.name, once=once, request_id=request_id)

    return _changed(await once_only(request, None, archive), request_id)


def _changed(changed: ChangeAnswer, request_id: str) -> Reply:
    if isinstance(changed, domain.CouponDetail):
        return ok(campaign_schemas.campaign_body(changed.coupon, changed.campaign))
    if isinstance(changed, domain.Replayed):
        return replayed(_changed(changed.answer, changed.request_id))
    return refused(changed, request_id)


_LOCATION = {"Location": "the path of what was made"}
# What can be asked next, for clients and test programs that follow links.
_LINKS = {
    "coupon": {"operationId": "get_coupon", "parameters": {"name": "$response.body#/name"}},
    "claims": {"operationId": "list_claims", "parameters": {"name": "$response.body#/name"}},
    "claim": {"operationId": "claim_coupon", "requestBody": {"coupon_name": "$response.body#/name"}},
}

ROUTES: tuple[Route, ...] = (
    Route(
        "POST",
        "/api/coupons",
        create_coupon,
        tag="coupons",
        summary="Offer a new coupon",
        success=Success(201, "It is on offer.", campaign_schemas.CampaignBody, headers=_LOCATION, links=_LINKS),
        refusals=(domain.CouponExists, domain.PeriodIsEmpty),
        problems=(UNAVAILABLE,),
        access=only(domain.Scope.COUPONS_WRITE),
        keyed=True,
    ),
    Route(
        "PATCH",
        "/api/coupons/{name}",
        change_coupon,
        tag="coupons",
        summary="Change a coupon",
        success=Success(200, "It is changed.", campaign_schemas.CampaignBody),
        refusals=(domain.UnknownCoupon, domain.AmountBelowClaimed, domain.AmountIsCodes, domain.PeriodIsEmpty),
        problems=(UNAVAILABLE,),
        access=only(domain.Scope.COUPONS_WRITE),
    ),
    Route(
        "PATCH",
        "/api/coupons/claim",
        change_coupon_named_claim,
        tag="coupons",
        summary="Change the coupon named `claim`",
        success=Success(200, "It is changed.", campaign_schemas.CampaignBody),
        refusals=(domain.UnknownCoupon, domain.AmountBelowClaimed, domain.AmountIsCodes, domain.PeriodIsEmpty),
        problems=(UNAVAILABLE,),
        access=only(domain.Scope.COUPONS_WRITE),
    ),
    Route(
        "POST",
        "/api/coupons/{name}/archive",
        archive_coupon,
        tag="coupons",
        summary="Close a coupon for good",
        success=Success(200, "It is closed.", campaign_schemas.CampaignBody),
        refusals=(domain.UnknownCoupon,),
        problems=(UNAVAILABLE,),
        access=only(domain.Scope.COUPONS_WRITE),
        keyed=True,
    ),
)
