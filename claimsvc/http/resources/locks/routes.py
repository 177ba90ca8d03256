"""The routes that list locks and release them by force; both need a key."""

from aiohttp import web

from claimsvc import domain
from claimsvc.application import locks
from claimsvc.domain.problems import UNAVAILABLE
from claimsvc.http.framework import parameters
from claimsvc.http.framework.auth import only
from claimsvc.http.framework.reasons import NO_REASON, OptionalReason, ReasonQuery, reason_of
from claimsvc.http.framework.refusals import refused
from claimsvc.http.framework.routing import Route, Success, ok
from claimsvc.http.framework.services import CALLER, SERVICES
from claimsvc.http.server.observers import REQUEST_ID
from claimsvc.http.server.response import Reply
from claimsvc.representations import locks as lock_schemas


async def list_locks(request: web.Request) -> Reply:
    """List the locks that are held, with their holders and the instances that wait. Reading them does not delay
    claims."""
    return ok(lock_schemas.locks_body(await locks.held(request.app[SERVICES].lock_admin, request[CALLER])))


async def release_lock(
    request: web.Request, path: parameters.LockPath, query: ReasonQuery, body: OptionalReason = NO_REASON
) -> Reply:
    """Release a lock by force, and wake the next instance that waits for it.

    The release is recorded in the audit first, so it needs PostgreSQL. The holder continues until it notices that the
    lock is lost; its claims are still correct, because PostgreSQL decides them.
    """
    released = await locks.release(
        request.app[SERVICES].lock_admin,
        request[CALLER],
        path.coupon_name,
        reason_of(query, body),
        request_id=request[REQUEST_ID],
    )
    if isinstance(released, domain.LockNotHeld):
        return refused(released, request[REQUEST_ID])
    return ok(lock_schemas.lock_released_body(released))


ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        "/api/locks",
        list_locks,
        tag="operations",
        summary="List locks",
        success=Success(200, "The current locks.", lock_schemas.LocksBody),
        problems=(UNAVAILABLE,),
        access=only(domain.Scope.LOCKS_READ),
    ),
    Route(
        "DELETE",
        "/api/locks/{coupon_name}",
        release_lock,
        tag="operations",
        summary="Release a lock by force",
        success=Success(200, "The lock is released.", lock_schemas.LockReleasedBody),
        refusals=(domain.LockNotHeld,),
        problems=(UNAVAILABLE,),
        access=only(domain.Scope.LOCKS_WRITE),
    ),
)
