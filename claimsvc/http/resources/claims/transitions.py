"""The routes that confirm and cancel claims."""

from aiohttp import web

from claimsvc import domain
from claimsvc.application import claims
from claimsvc.domain.problems import UNAVAILABLE
from claimsvc.http.framework import parameters
from claimsvc.http.framework.auth import users_and
from claimsvc.http.framework.idempotency import once_only, replayed
from claimsvc.http.framework.reasons import NO_REASON, OptionalReason, ReasonQuery, reason_of
from claimsvc.http.framework.refusals import refused
from claimsvc.http.framework.routing import Route, Success, ok
from claimsvc.http.framework.services import CALLER, SERVICES
from claimsvc.http.server.observers import REQUEST_ID
from claimsvc.http.server.response import Reply
from claimsvc.representations.claims import ClaimBody, claim_body


async def cancel_claim(
    request: web.Request, path: parameters.ClaimPath, query: ReasonQuery, body: OptionalReason = NO_REASON
) -> Reply:
    """Cancel a claim, held or confirmed. Its unit can be claimed again, also by the same user. Cancelling again has the
    same response, and returns no further unit."""
    services = request.app[SERVICES]
    ended = await claims.cancel(
        services.claim_records,
        services.transitions,
        request[CALLER],
        path.id,
        reason_of(query, body),
        request_id=request[REQUEST_ID],
    )
    return _reply(ended, request[REQUEST_ID])


async def confirm_claim(request: web.Request, path: parameters.ClaimPath) -> Reply:
    """Confirm a held claim, so that it never expires. Confirming again has the same response."""
    services, caller, request_id = request.app[SERVICES], request[CALLER], request[REQUEST_ID]

    async def confirm(key: domain.IdempotencyKey | None) -> object:
        return await claims.confirm(
            services.claim_records, services.transitions, caller, path.id, key=key, request_id=request_id
        )

    return _reply(await once_only(request, None, confirm), request_id)


def _reply(
    outcome: domain.Cancelled
    | domain.Confirmed
    | domain.HoldExpired
    | domain.AlreadyCancelled
    | domain.AlreadyRedeemed
    | domain.UnknownClaim
    | domain.NotYourClaim
    | domain.Replayed
    | domain.KeyReused,
    request_id: str,
) -> Reply:
    if isinstance(outcome, domain.Cancelled | domain.Confirmed):
        return ok(claim_body(outcome.claim))
    if isinstance(outcome, domain.Replayed):
        return replayed(_reply(outcome.answer, outcome.request_id))
    return refused(outcome, request_id)


ROUTES: tuple[Route, ...] = (
    Route(
        "DELETE",
        "/api/claims/{id}",
        cancel_claim,
        tag="claims",
        summary="Cancel a claim",
        success=Success(200, "The claim is cancelled.", ClaimBody),
        refusals=(domain.UnknownClaim, domain.AlreadyRedeemed, domain.HoldExpired),
        problems=(UNAVAILABLE,),
        access=users_and(domain.Scope.CLAIMS_WRITE),
    ),
    Route(
        "POST",
        "/api/claims/{id}/confirm",
        confirm_claim,
        tag="claims",
        summary="Confirm a held claim",
        success=Success(200, "The claim is confirmed.", ClaimBody),
        refusals=(domain.UnknownClaim, domain.AlreadyCancelled, domain.HoldExpired),
        problems=(UNAVAILABLE,),
        access=users_and(domain.Scope.CLAIMS_WRITE),
        keyed=True,
    ),
)
