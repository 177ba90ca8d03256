"""Seeing locks, and releasing one by force."""

from claimsvc.application.permissions import require
from claimsvc.domain import Caller, LockNotHeld, LockReleased, LocksSeen, Scope
from claimsvc.ports import LockAdmin


async def held(lock_admin: LockAdmin, caller: Caller) -> LocksSeen:
    """List the locks that are held, and who waits for them.

    Raises:
        PermissionDeniedError: the caller may not.
        UnavailableError: a majority of the masters does not answer.
    """
    require(caller, Scope.LOCKS_READ)
    return await lock_admin.held()


async def release(
    lock_admin: LockAdmin, caller: Caller, coupon_name: str, reason: str, *, request_id: str | None = None
) -> LockReleased | LockNotHeld:
    """Release a coupon's lock for its holder, and wake the next one. Audited first, and not done without PostgreSQL.

    Raises:
        PermissionDeniedError: the caller may not.
        UnavailableError: PostgreSQL or a majority of the masters does not answer.
    """
    require(caller, Scope.LOCKS_WRITE)
    return await lock_admin.release(coupon_name, actor=caller.actor, reason=reason, request_id=request_id)
