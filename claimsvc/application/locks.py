"""Listing locks, and releasing a lock by force."""

from claimsvc.application.scopes import require
from claimsvc.domain import Caller, LockNotHeld, LockReleased, LocksSeen, Scope
from claimsvc.ports import LockAdmin


async def held(lock_admin: LockAdmin, caller: Caller) -> LocksSeen:
    """List the locks that are held, and the instances that wait for them. The caller needs the scope `locks:read`.

    Raises:
        PermissionDeniedError: the caller lacks the scope.
        UnavailableError: a majority of the masters does not answer.
    """
    require(caller, Scope.LOCKS_READ)
    return await lock_admin.held()


async def release(
    lock_admin: LockAdmin, caller: Caller, coupon_name: str, reason: str, *, request_id: str | None = None
) -> LockReleased | LockNotHeld:
    """Release a coupon's lock by force, and wake the next instance that waits for it.

    The release is recorded in the audit first, so it needs PostgreSQL.

    Args:
        lock_admin: releases locks.
        caller: needs the scope `locks:write`.
        coupon_name: the coupon.
        reason: why, for the audit; may be empty.
        request_id: the request's id, for the audit.

    Raises:
        PermissionDeniedError: the caller lacks the scope.
        UnavailableError: PostgreSQL or a majority of the masters does not answer.
    """
    require(caller, Scope.LOCKS_WRITE)
    return await lock_admin.release(coupon_name, actor=caller.actor, reason=reason, request_id=request_id)
