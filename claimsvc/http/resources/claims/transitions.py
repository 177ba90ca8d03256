"""The routes of what becomes of a claim after it was made."""

from typing import Annotated

from aiohttp import web
from pydantic import Field

from claimsvc import domain
from claimsvc.application import claims
from claimsvc.domain.problems import UNAVAILABLE
from claimsvc.http.framework import parameters, schemas
from claimsvc.http.framework.auth import users_and
from claimsvc.http.framework.idempotency import once_only, replayed
from claimsvc.http.framework.refusals import refused
from claimsvc.http.framework.routing import Route, Success, ok
from claimsvc.http.framework.services import CALLER, SERVICES
from claimsvc.http.server.observers import REQUEST_ID
from claimsvc.http.server.response import Reply
from claimsvc.representations.fields import Request


class CancelClaim(Request):
    """Why a claim is given back; the audit keeps it."""

    reason: Annotated[
        str,
        Field(
            min_length=1,
            max_length=domain.MAX_REASON_LENGTH,
            pattern=domain.REASON_PATTERN,
            description="1 to 500 characters on one line, the first of them visible",
            examples=["bought something else"],
        ),
    ]


async def cancel_claim(request: web.Request, path: parameters.ClaimPath, body: CancelClaim) -> Reply:
    """Give a claim back, held or confirmed: its unit is free for anybody, and its user may claim again. Asked for
    again, it is answered alike, and nothing more comes back."""
    services = request.app[SERVICES]
    ended = await claims.cancel(
        services.claim_records,
        services.transitions,
        request[CALLER],
        path.id,
        body.reason,
        request_id=request[REQUEST_ID],
    )
    return _reply(ended, request[REQUEST_ID])


async def confirm_claim(request: web.Request, path: parameters.ClaimPath) -> Reply:
    """Keep a unit that is held for good. Asked for again, it is answered alike."""
    services, caller, request_id = request.app[SERVICES], request[CALLER], request[REQUEST_ID]

    async def confirm(once: domain.IdempotencyKey | None) -> object:
        return await claims.confirm(
            services.claim_records, services.transitions, caller, path.id, once=once, request_id=request_id
        )

    return _reply(await once_only(request, None, confirm), request_id)


def _reply(
    became: domain.Cancelled
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
    if isinstance(became, domain.Cancelled | domain.Confirmed):
        return ok(schemas.claim_body(became.claim))
    if isinstance(became, domain.Replayed):
        return replayed(_reply(became.answer, became.request_id))
    return refused(became, request_id)


ROUTES: tuple[Route, ...] = (
    Route(
        "DELETE",
        "/api/claims/{id}",
        cancel_claim,
        tag="claims",
        summary="Give a claim back",
        success=Success(200, "The claim is given back.", schemas.ClaimBody),
        refusals=(domain.UnknownClaim, domain.AlreadyRedeemed, domain.HoldExpired),
        problems=(UNAVAILABLE,),
        access=users_and(domain.Scope.CLAIMS_WRITE),
    ),
    Route(
        "POST",
        "/api/claims/{id}/confirm",
        confirm_claim,
        tag="claims",
        summary="Confirm a claim that is held",
        success=Success(200, "The claim is its user's for good.", schemas.ClaimBody),
        refusals=(domain.UnknownClaim, domain.AlreadyCancelled, domain.HoldExpired),
        problems=(UNAVAILABLE,),
        access=users_and(domain.Scope.CLAIMS_WRITE),
        keyed=True,
    ),
)
