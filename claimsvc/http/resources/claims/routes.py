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
from claimsvc.http.framework.preferences import PREFERENCE_APPLIED, RESPOND_ASYNC, preferences_of
from claimsvc.http.framework.rate_limit import DOCUMENTED, within_quota
from claimsvc.http.framework.refusals import next_look, refused, shown_ticket
from claimsvc.http.framework.routing import Route, Success, accepted, created, ok
from claimsvc.http.framework.services import CALLER, SERVICES
from claimsvc.http.server import problems
from claimsvc.http.server.access_log import CLAIM, Claim
from claimsvc.http.server.observers import REQUEST_ID
from claimsvc.http.server.response import Reply
from claimsvc.ports import AnyClaims, PendingOutcome
from claimsvc.representations.claims import ClaimBody, ReadClaimBody, claim_body, listed_claim_body
from claimsvc.representations.tickets import TicketBody

_NOTHING: domain.Attributes = MappingProxyType({})


@within_quota
async def claim_coupon(request: web.Request, body: schemas.ClaimCoupon) -> Reply:
    """Claim one unit of a coupon for a user.

    Send exactly one of `coupon_name` and `type`. With `type`, the oldest claimable coupon of that type is claimed; null
    means the coupons without a type. With `hold_seconds` the unit is held until you confirm the claim or the time is
    over.

    If the user already holds a unit, the response is 200: a repeated hold continues unchanged, and a claim without
    `hold_seconds` confirms it.

    Claims of a coupon with a queue, and those that prefer `respond-async`, wait for their turn: the response is 202
    with a ticket, at once. Who asks again while waiting gets the same ticket, at the same place.
    """
    prefers_ticket = preferences_of(request).respond_async

    def begin(key: domain.IdempotencyKey | None) -> PendingOutcome:
        claims, token = request.app[SERVICES].strategy, request[CALLER].attributes
        answer = begin_claim(claims, body, key, token, prefers_ticket=prefers_ticket)
        request[CLAIM] = Claim(body.coupon_name or None, answer)
        return answer

    under_way = request.app[SERVICES].under_way
    if under_way is None:
        outcome = await once_only(request, body, begin)
    else:
        async with under_way.place(under_way.address_of(request.remote, request.headers)):
            outcome = await once_only(request, body, begin)
    reply = claim_reply(outcome, request[REQUEST_ID])
    if prefers_ticket and is_queued(outcome):
        reply.headers[PREFERENCE_APPLIED] = RESPOND_ASYNC
    return reply


def begin_claim(
    claims: AnyClaims,
    body: schemas.ClaimCoupon,
    key: domain.IdempotencyKey | None = None,
    token: domain.Attributes = _NOTHING,
    *,
    prefers_ticket: bool = False,
) -> PendingOutcome:
    """Begin a claim.

    Args:
        claims: makes claims.
        body: the validated body.
        key: the request's idempotency key.
        token: what the user's verified token states.
        prefers_ticket: whether the claim is to wait in a queue in any case.

    Raises:
        RefusedError: the body names both a coupon and a type, or neither.
    """
    if bool(body.coupon_name) is (body.type != ""):
        raise _not_one_of_both(body)
    options = None
    if body.hold_seconds is not None or key is not None or body.attributes or token or prefers_ticket:
        options = domain.ClaimOptions(
            hold_seconds=body.hold_seconds,
            idempotency_key=key,
            attributes=body.attributes or {},
            token=token,
            prefers_ticket=prefers_ticket,
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
        case domain.Queued(ticket):
            # Whoever makes a claim sees its code.
            body = shown_ticket(ticket, request_id, shows_code=True)
            return next_look(accepted(body, f"/api/tickets/{ticket.id}"), ticket)
        case domain.Replayed(answer, first_request_id):
            return replayed(claim_reply(answer, first_request_id))
    return refused(outcome, request_id)


def is_queued(outcome: domain.Outcome) -> bool:
    """Whether the claim was answered with a ticket, by this request or by the one that it repeats."""
    return isinstance(outcome.answer if isinstance(outcome, domain.Replayed) else outcome, domain.Queued)


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

_OF_A_TICKET: dict[str, dict[str, Any]] = {
    "ticket": {"operationId": "get_ticket", "parameters": {"id": "$response.body#/id"}},
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
            Success(
                202,
                "The claim waits in the coupon's queue; the ticket tells what becomes of it.",
                TicketBody,
                headers={
                    "Location": "the path of the ticket",
                    "Retry-After": "when it is worth to read the ticket, in whole seconds",
                    "Preference-Applied": "`respond-async`, if that was preferred",
                    **DOCUMENTED,
                },
                links=_OF_A_TICKET,
            ),
        ),
        refusals=refusals_of_claiming(),
        problems=(QUOTA_EXCEEDED, LOCK_BUSY, UNAVAILABLE),
        access=CLAIM_ACCESS,
        keyed=True,
        prefer="`respond-async`: wait in a queue, also where the coupon has none of its own",
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
