"""Forgetting users."""

from claimsvc.application.permissions import require
from claimsvc.domain import Caller, Erased, Scope
from claimsvc.ports import Erasure


async def erase(erasure: Erasure, caller: Caller, user_id: str, *, request_id: str | None = None) -> Erased:
    """Forget a user and keep all counts. Safe to repeat.

    Raises:
        PermissionDeniedError: the caller may not.
        UnavailableError: the database does not answer in time.
    """
    require(caller, Scope.USERS_ERASE)
    return await erasure.erase(user_id, actor=caller.actor, request_id=request_id)
