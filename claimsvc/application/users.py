"""Erasing users."""

from claimsvc.application.scopes import require
from claimsvc.domain import Caller, Erased, Scope
from claimsvc.ports import Erasure


async def erase(erasure: Erasure, caller: Caller, user_id: str, *, request_id: str | None = None) -> Erased:
    """Erase a user; counts of claims stay the same. Safe to repeat. The caller needs the scope `users:erase`.

    Raises:
        PermissionDeniedError: the caller lacks the scope.
        UnavailableError: the database does not answer in time.
    """
    require(caller, Scope.USERS_ERASE)
    return await erasure.erase(user_id, actor=caller.actor, request_id=request_id)
