"""The routes of claiming, and of looking a claim up; what becomes of it later is in `transitions`."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from aiohttp import web

from claimsvc import domain
from claimsvc.application import claims as claim_cases
from claimsvc.domain import Scope
from claimsvc.domain.outcomes import refusals_of_claiming
from claimsvc.domain.problems import LOCK_BUSY, QUOTA_EXCEEDED, UNAVAILABLE
from claimsvc.http.framework import parameters, schemas
from claimsvc.http.framework.auth import users_and
from claimsvc.http.framework.idempotency import once_only, replayed
from claimsvc.http.framework.rate_limit import DOCUMENTED, within_quota
from claimsvc.http.framework.refusals import refused
from claimsvc.http.framework.routing import Route, Success, created, ok
from claimsvc.http.framework.services import CALLER, SERVICES
from claimsvc.http.server import problems
from claimsvc.http.server.access_log import CLAIM, Claim
from claimsvc.http.server.observers import REQUEST_ID
from claimsvc.http.server.response import Reply
from claimsvc.ports import AnyClaims, PendingOutcome

_NOTHING: Mapping[str, Any] = MappingProxyType({})


@within_quota
async def claim_coupon(request: web.Request, body: schemas.ClaimCoupon) -> Reply:
    """Claim one unit of a coupon for a user, for good or, with `hold_seconds`, until it is confirmed. Without
    `coupon_name` it is the oldest coupon that can be claimed, of the `type` if there is one.

    A hold that is asked for again goes on as it was, and one that is asked for as a claim is confirmed: both are
    answered 200.
    """

    def begin(once: domain.IdempotencyKey | None) -> PendingOutcome:
        answer = begin_claim(request.app[SERVICES].strategy, body, once, request[CALLER].token)
        request[CLAIM] = Claim(body.coupon_name or None, answer)
        return answer

    return claim_reply(await once_only(request, body, begin), request[REQUEST_ID])


def begin_claim(
    claims: AnyClaims,
    asked: schemas.ClaimCoupon,
    once: domain.IdempotencyKey | None = None,
    token: Mapping[str, Any] = _NOTHING,
) -> PendingOutcome:
    """The answer, to come, to what is asked.

    Args:
        token: what the user's token says.

    Raises:
        RefusedError: it names both a coupon and a type.
    """
    if asked.coupon_name and asked.type:
        raise problems.bad_body("Name a coupon or a type, not both.", pointer="#/type")
    options = options_of(asked, once, token)
    return claim_cases.begin(claims, asked.user_id, asked.coupon_name or None, asked.type or None, options)


def options_of(
    asked: schemas.ClaimCoupon, once: domain.IdempotencyKey | None = None, token: Mapping[str, Any] = _NOTHING
) -> domain.ClaimOptions | None:
    """What is asked for beyond a unit; None for the usual claim."""
    if asked.hold_seconds is None and once is None and not asked.attributes and not token:
        return None
    return domain.ClaimOptions(
        hold_seconds=asked.hold_seconds,
        once=once,
        attributes=asked.attributes or {},
        token=domain.attributes_of(token),
    )


def claim_reply(outcome: domain.ClaimOutcome, request_id: str) -> Reply:
    """What a claim is answered."""
    match outcome:
        case domain.Claimed(claim):
            return created(schemas.claim_body(claim), f"/api/claims/{claim.id}")
        case domain.HoldContinued(claim):
            return ok(schemas.claim_body(claim))
        case domain.Replayed(answer, first_request_id):
            return replayed(claim_reply(answer, first_request_id))
    return refused(outcome, request_id)


async def get_claim(request: web.Request, path: parameters.ClaimPath) -> Reply:
    """One claim."""
    found = await claim_cases.get(request.app[SERVICES].claim_records, request[CALLER], path.id)
    if isinstance(found, domain.Claim):
        return ok(schemas.claim_body(found))
    return refused(found, request[REQUEST_ID])


_LOCATION = {"Location": "the path of what was made"}
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
        refusals=refusals_of_claiming(),
        problems=(QUOTA_EXCEEDED, LOCK_BUSY, UNAVAILABLE),
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
        refusals=(domain.UnknownClaim,),
        problems=(UNAVAILABLE,),
        access=users_and(Scope.CLAIMS_READ),
    ),
)
