"""The routes that claim a coupon and read a claim. `transitions` has those that confirm and cancel claims."""

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
from claimsvc.representations.claims import ClaimBody, ReadClaimBody, claim_body, listed_claim_body

_NOTHING: domain.Attributes = MappingProxyType({})


@within_quota
async def claim_coupon(request: web.Request, body: schemas.ClaimCoupon) -> Reply:
    """Claim one unit of a coupon for a user.

    Send exactly one of `coupon_name` and `type`. With `type`, the oldest claimable coupon of that type is claimed; null
    means the coupons without a type. With `hold_seconds` the unit is held until you confirm the claim or the time is
    over.

    If the user already holds a unit, the response is 200: a repeated hold continues unchanged, and a claim without
    `hold_seconds` confirms it.
    """

    def begin(key: domain.IdempotencyKey | None) -> PendingOutcome:
        answer = begin_claim(request.app[SERVICES].strategy, body, key, request[CALLER].attributes)
        request[CLAIM] = Claim(body.coupon_name or None, answer)
        return answer

    under_way = request.app[SERVICES].under_way
    if under_way is None:
        return claim_reply(await once_only(request, body, begin), request[REQUEST_ID])
    async with under_way.place(under_way.address_of(request.remote, request.headers)):
        return claim_reply(await once_only(request, body, begin), request[REQUEST_ID])


def begin_claim(
    claims: AnyClaims,
    body: schemas.ClaimCoupon,
    key: domain.IdempotencyKey | None = None,
    token: domain.Attributes = _NOTHING,
) -> PendingOutcome:
    """Begin a claim.

    Args:
        claims: makes claims.
        body: the validated body.
        key: the request's idempotency key.
        token: what the user's verified token states.

    Raises:
        RefusedError: the body names both a coupon and a type, or neither.
    """
    if bool(body.coupon_name) is (body.type != ""):
        raise _not_one_of_both(body)
    options = None
    if body.hold_seconds is not None or key is not None or body.attributes or token:
        options = domain.ClaimOptions(
            hold_seconds=body.hold_seconds,
            idempotency_key=key,
            attributes=body.attributes or {},
            token=token,
        )
    return claim_cases.begin(claims, body.user_id, body.coupon_name or None, body.type or None, options)


def _not_one_of_both(body: schemas.ClaimCoupon) -> problems.RefusedError:
    if body.coupon_name:
        return problems.bad_body(
            'Send either `coupon_name` or `type`, not both; not `"type": null` either.', pointer="#/type"
        )
    return problems.bad_body(
        "Send exactly one of `coupon_name` and `type`, such as "
        '{"user_id": "user-1", "coupon_name": "demo"}; "type": null means a coupon without a type.',
    )


def claim_reply(outcome: domain.ClaimOutcome, request_id: str) -> Reply:
    """Render the outcome of a claim.

    Args:
        outcome: the outcome.
        request_id: the request's id, which problems contain.
    """
    match outcome:
        case domain.Claimed(claim):
            return created(claim_body(claim), f"/api/claims/{claim.id}")
        case domain.HoldContinued(claim):
            return ok(claim_body(claim))
        case domain.Replayed(answer, first_request_id):
            return replayed(claim_reply(answer, first_request_id))
    return refused(outcome, request_id)


async def get_claim(request: web.Request, path: parameters.ClaimPath) -> Reply:
    """Read a claim."""
    found = await claim_cases.get(request.app[SERVICES].claim_records, request[CALLER], path.id)
    if isinstance(found, domain.Claim):
        return ok(listed_claim_body(found, shows_code=claim_cases.shows_code(request[CALLER], found)))
    return refused(found, request[REQUEST_ID])


_LOCATION = {"Location": "the path of the created claim"}
# OpenAPI links, for clients and test programs that follow them.
_OF_A_CLAIM: dict[str, dict[str, Any]] = {
    "self": {"operationId": "get_claim", "parameters": {"id": "$response.body#/id"}},
    "coupon": {"operationId": "get_coupon", "parameters": {"name": "$response.body#/coupon_name"}},
    "claims": {"operationId": "list_claims", "parameters": {"name": "$response.body#/coupon_name"}},
}

CLAIM_PATH = "/api/coupons/claim"
CLAIM_ACCESS = users_and(Scope.CLAIMS_WRITE)

ROUTES: tuple[Route, ...] = (
    Route(
        "POST",
        CLAIM_PATH,
        claim_coupon,
        tag="claims",
        summary="Claim one unit of a coupon",
        success=Success(
            201, "The claim is committed.", ClaimBody, headers={**_LOCATION, **DOCUMENTED}, links=_OF_A_CLAIM
        ),
        other_successes=(
            Success(
                200,
                "The user holds the unit already: the hold goes on, or is now confirmed.",
                ClaimBody,
                headers=DOCUMENTED,
                links=_OF_A_CLAIM,
            ),
        ),
        refusals=refusals_of_claiming(),
        problems=(QUOTA_EXCEEDED, LOCK_BUSY, UNAVAILABLE),
        access=CLAIM_ACCESS,
        keyed=True,
    ),
    Route(
        "GET",
        "/api/claims/{id}",
        get_claim,
        tag="claims",
        summary="Read a claim",
        success=Success(200, "The claim; with its code, if the caller may see it.", ReadClaimBody),
        refusals=(domain.UnknownClaim,),
        problems=(UNAVAILABLE,),
        access=users_and(Scope.CLAIMS_READ),
    ),
)
