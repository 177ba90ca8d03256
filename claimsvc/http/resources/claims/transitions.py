"""The routes of what becomes of a claim after it was made."""

from functools import partial
from typing import Annotated

from aiohttp import web
from pydantic import Field

from claimsvc import domain
from claimsvc.http.framework import outcomes, parameters, schemas
from claimsvc.http.framework.auth import require_action, users_and
from claimsvc.http.framework.idempotency import once_only, replayed
from claimsvc.http.framework.routing import Route, Success, ok
from claimsvc.http.framework.services import ACTOR, CALLER, SERVICES
from claimsvc.http.server import problems
from claimsvc.http.server.observers import REQUEST_ID
from claimsvc.http.server.response import Reply


class CancelClaim(schemas.Request):
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
    await _require_own(request, path.id)
    entry = domain.AuditEntry(
        request[ACTOR], "claim.cancel", "claim", path.id.lower(), reason=body.reason, request_id=request[REQUEST_ID]
    )
    ended = await request.app[SERVICES].transitions.cancel(path.id, entry)
    return _reply(ended, request[REQUEST_ID])


async def confirm_claim(request: web.Request, path: parameters.ClaimPath) -> Reply:
    """Keep a unit that is held for good. Asked for again, it is answered alike."""
    await _require_own(request, path.id)
    request_id = request[REQUEST_ID]
    confirm = partial(request.app[SERVICES].transitions.confirm, path.id, actor=request[ACTOR], request_id=request_id)
    return _reply(await once_only(request, None, confirm), request_id)


async def _require_own(request: web.Request, claim_id: str) -> None:
    """Raise `RefusedError` unless the claim is the caller's, or the caller may do this for everybody."""
    if domain.Scope.CLAIMS_WRITE in request[CALLER].scopes:
        return
    # A claim never changes its user, so what is read here still holds when it is changed.
    claim = await request.app[SERVICES].storage.claim(claim_id)
    if claim is not None:
        require_action(request, claim.user_id)


def _reply(
    became: domain.Cancelled
    | domain.Confirmed
    | domain.HoldExpired
    | domain.AlreadyCancelled
    | domain.AlreadyRedeemed
    | domain.UnknownClaim
    | domain.Replayed
    | domain.KeyReused,
    request_id: str,
) -> Reply:
    if isinstance(became, domain.Cancelled | domain.Confirmed):
        return ok(schemas.claim_body(became.claim))
    if isinstance(became, domain.Replayed):
        return replayed(_reply(became.answer, became.request_id))
    return outcomes.from_outcome(became, request_id)


ROUTES: tuple[Route, ...] = (
    Route(
        "DELETE",
        "/api/claims/{id}",
        cancel_claim,
        tag="claims",
        summary="Give a claim back",
        success=Success(200, "The claim is given back.", schemas.ClaimBody),
        problems=(
            problems.UNKNOWN_CLAIM,
            problems.ALREADY_REDEEMED,
            problems.HOLD_EXPIRED,
            problems.UNAVAILABLE,
        ),
        access=users_and(domain.Scope.CLAIMS_WRITE),
    ),
    Route(
        "POST",
        "/api/claims/{id}/confirm",
        confirm_claim,
        tag="claims",
        summary="Confirm a claim that is held",
        success=Success(200, "The claim is its user's for good.", schemas.ClaimBody),
        problems=(problems.UNKNOWN_CLAIM, problems.CLAIM_CANCELLED, problems.HOLD_EXPIRED, problems.UNAVAILABLE),
        access=users_and(domain.Scope.CLAIMS_WRITE),
        keyed=True,
    ),
)
