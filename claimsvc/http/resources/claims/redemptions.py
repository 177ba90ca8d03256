"""The routes that redeem claims."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from aiohttp import web
from pydantic import Field

from claimsvc import domain
from claimsvc.application import redemptions
from claimsvc.domain.problems import UNAVAILABLE
from claimsvc.http.framework import parameters
from claimsvc.http.framework.auth import only, only_users_and
from claimsvc.http.framework.idempotency import once_only, replayed
from claimsvc.http.framework.reasons import TakeBack
from claimsvc.http.framework.refusals import refused
from claimsvc.http.framework.routing import Route, Success, ok
from claimsvc.http.framework.services import CALLER, SERVICES
from claimsvc.http.server.observers import REQUEST_ID
from claimsvc.http.server.response import Reply
from claimsvc.representations.benefits import benefit_body
from claimsvc.representations.claims import ClaimWithoutTermsBody, OwnBenefit, OwnType, all_but_code
from claimsvc.representations.coupons import Uses


@dataclass(frozen=True, slots=True)
class RedeemedClaimWithoutTermsBody(ClaimWithoutTermsBody):
    """A claim, and how often it was redeemed. Its type and benefit are those of its coupon."""

    redeemed_at: Annotated[datetime | None, Field(description="when it was redeemed, for the last time if several")]
    redeemed_count: Annotated[int, Field(ge=0, description="how often it was redeemed", examples=[1])]
    uses: Uses


@dataclass(frozen=True, slots=True)
class RedeemedClaimBody(RedeemedClaimWithoutTermsBody):
    """A claim, and how often it was redeemed."""

    type: OwnType = None
    benefit: OwnBenefit = None


async def redeem_claim(request: web.Request, path: parameters.ClaimPath) -> Reply:
    """Redeem a claim, and its code if it has one. It can be redeemed as often as its code, or else its coupon, says,
    usually once: of several concurrent requests, no more succeed."""
    services, caller, request_id = request.app[SERVICES], request[CALLER], request[REQUEST_ID]

    async def redeem(key: domain.IdempotencyKey | None) -> object:
        return await redemptions.redeem(
            services.claim_records, services.codes, caller, path.id, key=key, request_id=request_id
        )

    return _reply(await once_only(request, None, redeem), request_id)


async def unredeem_claim(request: web.Request, path: parameters.ClaimPath, body: TakeBack) -> Reply:
    """Take back the last redemption of a claim, which fell through. The claim can be redeemed once more."""
    services, caller, request_id = request.app[SERVICES], request[CALLER], request[REQUEST_ID]

    async def unredeem(key: domain.IdempotencyKey | None) -> object:
        return await redemptions.unredeem(services.codes, caller, path.id, body.reason, key=key, request_id=request_id)

    return _reply(await once_only(request, body, unredeem), request_id)


def _reply(outcome: Any, request_id: str) -> Reply:
    if isinstance(outcome, domain.ClaimRedeemed | domain.ClaimUnredeemed):
        claim = outcome.claim
        values = (
            *all_but_code(claim),
            claim.code,
            outcome.redeemed_at,
            outcome.redeemed_count,
            outcome.uses,
        )
        if claim.terms is None:
            return ok(RedeemedClaimWithoutTermsBody(*values))
        return ok(RedeemedClaimBody(*values, claim.terms.type, benefit_body(claim.terms.benefit)))
    if isinstance(outcome, domain.Replayed):
        return replayed(_reply(outcome.answer, outcome.request_id))
    return refused(outcome, request_id)


ROUTES: tuple[Route, ...] = (
    Route(
        "POST",
        "/api/claims/{id}/redeem",
        redeem_claim,
        tag="claims",
        summary="Redeem a claim",
        success=Success(200, "The claim is redeemed.", RedeemedClaimBody),
        refusals=(
            domain.UnknownClaim,
            domain.AlreadyRedeemed,
            domain.ClaimNotConfirmed,
            domain.ClaimEnded,
            domain.HoldExpired,
            domain.CodeExpired,
        ),
        problems=(UNAVAILABLE,),
        access=only_users_and(domain.Scope.CODES_REDEEM),
        keyed=True,
    ),
    Route(
        "POST",
        "/api/claims/{id}/unredeem",
        unredeem_claim,
        tag="claims",
        summary="Take back a redemption of a claim",
        success=Success(200, "The redemption is taken back.", RedeemedClaimBody),
        refusals=(domain.UnknownClaim, domain.NotRedeemed),
        problems=(UNAVAILABLE,),
        access=only(domain.Scope.CODES_REDEEM),
        keyed=True,
    ),
)
