"""The routes that list a user's claims."""

from aiohttp import web

from claimsvc import domain
from claimsvc.application import claims
from claimsvc.domain import Scope
from claimsvc.domain.problems import FORBIDDEN, UNAUTHORIZED, UNAVAILABLE
from claimsvc.http.framework import parameters, schemas
from claimsvc.http.framework.auth import USERS, users_and_shown
from claimsvc.http.framework.refusals import refused
from claimsvc.http.framework.routing import NEXT, Route, Success, ok, with_next_link
from claimsvc.http.framework.services import CALLER, SERVICES
from claimsvc.http.server.observers import REQUEST_ID
from claimsvc.http.server.problems import RefusedError
from claimsvc.http.server.response import Reply
from claimsvc.representations.claims import user_claim_body

_ELSEWHERE = "`me` is the user of a token. Send a user's token, or ask for `/api/users/{user_id}/claims`."


async def list_user_claims(
    request: web.Request, path: parameters.UserClaimsPath, query: parameters.UserClaimsQuery
) -> Reply:
    """List a user's claims of all coupons, newest first, ended ones too.

    The member `code` is there only for callers who may see it: the user itself, and keys with the scope `codes:read`.
    """
    return await _page(request, path.user_id, query)


async def list_own_claims(request: web.Request, query: parameters.UserClaimsQuery) -> Reply:
    """List the claims of the token's user, newest first, ended ones too, with their codes."""
    user_id = request[CALLER].user_id
    if user_id is None:
        raise RefusedError(UNAUTHORIZED if request[CALLER] is domain.ANYBODY else FORBIDDEN, _ELSEWHERE)
    return await _page(request, user_id, query)


async def _page(request: web.Request, user_id: str, query: parameters.UserClaimsQuery) -> Reply:
    found = await claims.of_user(
        request.app[SERVICES].claim_records,
        request[CALLER],
        user_id,
        states=query.states(),
        before=query.last(),
        limit=query.limit + 1,
    )
    if isinstance(found, domain.NotYourClaim):
        return refused(found, request[REQUEST_ID])
    page = found[: query.limit]
    cursor = parameters.claim_cursor(page[-1].claim) if len(found) > query.limit else None
    body = schemas.UserClaimPageBody([user_claim_body(each) for each in page], cursor)
    return with_next_link(request, ok(body), cursor)


_SUCCESS = Success(200, "A page of claims.", schemas.UserClaimPageBody, headers=NEXT)

ROUTES: tuple[Route, ...] = (
    # Before the other: the router takes the first that matches.
    Route(
        "GET",
        "/api/users/me/claims",
        list_own_claims,
        tag="claims",
        summary="List the claims of the token's user, newest first",
        success=_SUCCESS,
        problems=(FORBIDDEN, UNAVAILABLE),
        access=USERS,
    ),
    Route(
        "GET",
        "/api/users/{user_id}/claims",
        list_user_claims,
        tag="claims",
        summary="List a user's claims, newest first",
        success=_SUCCESS,
        problems=(UNAVAILABLE,),
        access=users_and_shown(Scope.CLAIMS_READ),
    ),
)
