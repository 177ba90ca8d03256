"""The routes that create, change and archive coupons; all need a key."""

from collections.abc import Sequence

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
    """Create a coupon."""
    campaign = body.campaign()
    services, caller, request_id = request.app[SERVICES], request[CALLER], request[REQUEST_ID]

    async def create(key: domain.IdempotencyKey | None) -> object:
        return await coupons.create(
            services.campaigns,
            caller,
            body.name,
            body.amount,
            body.strategy,
            campaign,
            key=key,
            request_id=request_id,
        )

    outcome = await once_only(request, body, create)
    if isinstance(outcome, domain.Coupon) and (live := request.app[SERVICES].live):
        live.coupon_created(outcome)
    return _create_reply(outcome, campaign, await _warnings(request, body.name, campaign, outcome), request[REQUEST_ID])


async def _warnings(
    request: web.Request, name: str, campaign: domain.Campaign, outcome: object
) -> Sequence[domain.CouponWarning]:
    """The warnings about a coupon's terms; none if the outcome is a refusal."""
    if not isinstance(outcome, domain.Coupon | domain.CouponDetail | domain.Replayed):
        return ()
    services = request.app[SERVICES]
    return await coupons.warnings(services.coupons, name, campaign, has_tokens=services.tokens is not None)


def _create_reply(
    outcome: domain.Coupon | domain.CouponExists | domain.PeriodIsEmpty | domain.Replayed | domain.KeyReused,
    campaign: domain.Campaign,
    warnings: Sequence[domain.CouponWarning],
    request_id: str,
) -> Reply:
    if isinstance(outcome, domain.Coupon):
        body = campaign_schemas.written_campaign_body(outcome, campaign, warnings)
        return created(body, campaign_schemas.coupon_path(outcome.name))
    if isinstance(outcome, domain.Replayed):
        return replayed(_create_reply(outcome.answer, campaign, warnings, outcome.request_id))
    return refused(outcome, request_id)


async def change_coupon(
    request: web.Request, path: parameters.CouponPath, body: campaign_schemas.ChangeCoupon
) -> Reply:
    """Change a coupon's amount or campaign. Members that you omit stay unchanged.

    The change is atomic: each claim is decided by the old values or by the new ones. The amount cannot be less than the
    number of units claimed or held.
    """
    outcome = await coupons.change(
        request.app[SERVICES].campaigns, request[CALLER], path.name, body.change(), request_id=request[REQUEST_ID]
    )
    if isinstance(outcome, domain.CouponDetail):
        warnings = await _warnings(request, path.name, outcome.campaign, outcome)
        return ok(campaign_schemas.written_campaign_body(outcome.coupon, outcome.campaign, warnings))
    return refused(outcome, request[REQUEST_ID])


async def change_coupon_named_claim(request: web.Request, body: campaign_schemas.ChangeCoupon) -> Reply:
    """Change the coupon named `claim`, whose path is also the path of claiming."""
    return await change_coupon(request, parameters.CouponPath(name="claim"), body)


async def archive_coupon(request: web.Request, path: parameters.NewCouponPath) -> Reply:
    """Archive a coupon permanently. It can no longer be claimed, and lists omit it; its claims stay."""
    services, caller, request_id = request.app[SERVICES], request[CALLER], request[REQUEST_ID]

    async def archive(key: domain.IdempotencyKey | None) -> object:
        return await coupons.archive(services.campaigns, caller, path.name, key=key, request_id=request_id)

    return _archive_reply(await once_only(request, None, archive), request_id)


def _archive_reply(outcome: ChangeAnswer, request_id: str) -> Reply:
    if isinstance(outcome, domain.CouponDetail):
        return ok(campaign_schemas.campaign_body(outcome.coupon, outcome.campaign))
    if isinstance(outcome, domain.Replayed):
        return replayed(_archive_reply(outcome.answer, outcome.request_id))
    return refused(outcome, request_id)


_LOCATION = {"Location": "the path of the created coupon"}
# OpenAPI links, for clients and test programs that follow them.
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
        summary="Create a coupon",
        success=Success(
            201, "The coupon is created.", campaign_schemas.WrittenCampaignBody, headers=_LOCATION, links=_LINKS
        ),
        refusals=(domain.CouponExists, domain.PeriodIsEmpty),
        problems=(UNAVAILABLE,),
        access=only(domain.Scope.COUPONS_WRITE, opens=True),
        keyed=True,
    ),
    Route(
        "PATCH",
        "/api/coupons/{name}",
        change_coupon,
        tag="coupons",
        summary="Change a coupon",
        success=Success(200, "The coupon is changed.", campaign_schemas.WrittenCampaignBody),
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
        success=Success(200, "The coupon is changed.", campaign_schemas.WrittenCampaignBody),
        refusals=(domain.UnknownCoupon, domain.AmountBelowClaimed, domain.AmountIsCodes, domain.PeriodIsEmpty),
        problems=(UNAVAILABLE,),
        access=only(domain.Scope.COUPONS_WRITE),
    ),
    Route(
        "POST",
        "/api/coupons/{name}/archive",
        archive_coupon,
        tag="coupons",
        summary="Archive a coupon",
        success=Success(200, "The coupon is archived.", campaign_schemas.CampaignBody),
        refusals=(domain.UnknownCoupon,),
        problems=(UNAVAILABLE,),
        access=only(domain.Scope.COUPONS_WRITE),
        keyed=True,
    ),
)
