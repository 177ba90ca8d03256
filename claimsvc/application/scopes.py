"""What a caller's scopes allow."""

from claimsvc.domain import Caller, Scope
from claimsvc.errors import PermissionDeniedError


def require(caller: Caller, scope: Scope) -> None:
    """Check that the caller has a scope.

    Raises:
        PermissionDeniedError: the caller lacks it.
    """
    if scope not in caller.scopes:
        raise PermissionDeniedError(scope)
