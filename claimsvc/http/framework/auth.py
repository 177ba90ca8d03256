"""Authentication and authorization: each route declares its `Access`, and `authorize` checks the caller against it.

Operators authenticate with keys, of which the service stores digests only. Users authenticate with tokens (JWT), if the
service is configured to verify them; otherwise claims need no authentication.
"""

import asyncio
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from aiohttp import hdrs, web

from claimsvc import domain
from claimsvc.domain import Caller, Scope
from claimsvc.domain.outcomes import problem_of
from claimsvc.domain.problems import FORBIDDEN, UNAUTHORIZED
from claimsvc.http.framework.services import ACTOR, CALLER, SERVICES, Services
from claimsvc.http.server.problems import RefusedError

# Enough digits of a digest to distinguish some dozens of keys, and too few to find the key.
_SHOWN_DIGITS = 12
# A JSON Web Token has three parts. Keys of `claimsvc key create` have no dots.
_DOTS_OF_A_TOKEN = 2


class Authentication(Enum):
    """When the caller has to authenticate."""

    NEVER = "never"
    ALWAYS = "always"
    WITH_TOKENS = "if tokens are configured"
    OPTIONAL = "if tokens are configured and the request has credentials"


@dataclass(frozen=True, slots=True)
class Access:
    """The callers that may use a route.

    Args:
        authentication: when the caller has to authenticate.
        scope: the scope that a key needs; None if every authenticated caller may use the route.
        for_users: whether users with a token may use it too, for their own claims.
        opens: whether `claimsvc dev --open` lets callers without credentials use it.
        heeds_keys: whether a key is read even if no tokens are configured, because the response then shows more.
    """

    authentication: Authentication
    scope: Scope | None = None
    for_users: bool = False
    heeds_keys: bool = False
    opens: bool = False


OPEN = Access(Authentication.NEVER)


def only(scope: Scope, *, opens: bool = False) -> Access:
    """Allow only keys with this scope, even if no tokens are configured.

    Args:
        scope: the scope that a key needs.
        opens: see `Access`.
    """
    return Access(Authentication.ALWAYS, scope, opens=opens)


def users_and(scope: Scope) -> Access:
    """Allow users, each for their own claims, and keys with this scope; every caller if no tokens are configured."""
    return Access(Authentication.WITH_TOKENS, scope, for_users=True)


def users_and_shown(scope: Scope) -> Access:
    """The same, but a key of the caller is always read: it shows what other callers do not see."""
    return Access(Authentication.WITH_TOKENS, scope, for_users=True, heeds_keys=True)


def only_users_and(scope: Scope) -> Access:
    """Allow users, each for their own claims, and keys with this scope; only these keys if no tokens are configured."""
    return Access(Authentication.ALWAYS, scope, for_users=True)


def only_with_tokens(scope: Scope) -> Access:
    """Allow only keys with this scope; every caller if no tokens are configured. A key is always read."""
    return Access(Authentication.WITH_TOKENS, scope, heeds_keys=True)


USERS = Access(Authentication.WITH_TOKENS, for_users=True, heeds_keys=True)
"""Allow users. The handler refuses callers who are none."""

SHOWS_USERS = Access(Authentication.OPTIONAL, for_users=True)
"""Allow every caller. The response shows users only to themselves and to keys with the scope `claims:read`."""


async def authorize(request: web.Request, access: Access) -> Caller:
    """Authenticate the caller and check its access. Stores the caller in the request, under `CALLER` and `ACTOR`.

    Raises:
        RefusedError: the credentials are missing or invalid (401), or do not permit the operation (403).
        UnavailableError: the credentials cannot be checked now.
    """
    caller = await _caller(request.app[SERVICES], access, request.headers.get(hdrs.AUTHORIZATION, ""))
    request[CALLER], request[ACTOR] = caller, caller.actor
    return caller


TokenFound = domain.TokenUser | domain.TokenRefused


def caller_soon(services: Services, access: Access, authorization: str) -> "Caller | asyncio.Future[TokenFound] | None":
    """The caller as of `authorize`, unless a key, or a set of keys, must be read: then None.

    Args:
        services: what the routes use.
        access: the callers that may use the route.
        authorization: the value of `Authorization`; empty if the request has none.

    Returns:
        The caller, or a future of what its token says, for `caller_found`; see `Tokens.user_soon`.

    Raises:
        RefusedError: the credentials are missing or invalid (401), or do not permit the operation (403).
    """
    caller = _unidentified(services, access, authorization)
    if caller is not None:
        return caller
    credential = _credential_of(authorization)
    caller = _admin(services, credential)
    if caller is None:
        if services.tokens is None or not _is_token(credential):
            return None
        found = services.tokens.user_soon(credential)
        if found is None or isinstance(found, asyncio.Future):
            return found
        caller = _user(found)
    return _permitted(services, access, caller)


def caller_found(services: Services, access: Access, found: TokenFound) -> Caller:
    """The caller whose token says this. Raises as `caller_soon`."""
    return _permitted(services, access, _user(found))


async def _caller(services: Services, access: Access, authorization: str) -> Caller:
    caller = _unidentified(services, access, authorization)
    if caller is None:
        credential = _credential_of(authorization)
        caller = _identified_at_hand(services, credential) or await _look_up(services, credential)
        caller = _permitted(services, access, caller)
    return caller


def _unidentified(services: Services, access: Access, authorization: str) -> Caller | None:
    """The caller, if it needs no credentials and has none that are read; None if it must be identified."""
    if _is_open(services, access):
        return None if access.heeds_keys and authorization else domain.ANYBODY
    if access.opens and access.scope is not None and services.is_open and not authorization:
        return replace(domain.ANYBODY, scopes=domain.ANYBODY.scopes | {access.scope})
    if access.authentication is Authentication.OPTIONAL and not authorization:
        return domain.NOBODY
    return None


def _is_open(services: Services, access: Access) -> bool:
    return access.authentication is Authentication.NEVER or (
        services.tokens is None and access.authentication is not Authentication.ALWAYS
    )


def _permitted(services: Services, access: Access, caller: Caller) -> Caller:
    """An identified caller, if it may use the route."""
    if _is_open(services, access):
        return replace(caller, scopes=caller.scopes | domain.ANYBODY.scopes)
    if access.scope is None:
        return caller
    if access.for_users if caller.user_id is not None else access.scope in caller.scopes:
        return caller
    raise RefusedError(FORBIDDEN, f"The key or token is valid, but this operation needs the scope `{access.scope}`.")


def given_by(caller: Caller) -> Mapping[str, Any]:
    """What a body that names a user may leave out, because the caller's token says it."""
    return {} if caller.user_id is None else {"user_id": caller.user_id}


def require_acting_for(caller: Caller, user_id: str) -> None:
    """Refuse a caller that may not make and change claims of the user.

    Raises:
        RefusedError: it is another user (403).
    """
    if not caller.acts_for(user_id):
        raise RefusedError(problem_of(domain.NotYourClaim()))


def _credential_of(authorization: str) -> str:
    """Return the credential of the header.

    Raises:
        RefusedError: it has none.
    """
    scheme, _, credential = authorization.partition(" ")
    if scheme.lower() != "bearer" or not credential.strip():
        raise RefusedError(UNAUTHORIZED)
    return credential.strip()


def _admin(services: Services, credential: str) -> Caller | None:
    digest = hashlib.sha256(credential.encode("utf-8", "surrogateescape")).hexdigest()
    # All digests are compared, each in constant time, so that the duration does not show which one was close.
    if sum([hmac.compare_digest(digest, known) for known in services.admin_key_digests]):
        return Caller(f"admin-key:{digest[:_SHOWN_DIGITS]}", domain.EVERY_SCOPE)
    return None


def _identified_at_hand(services: Services, credential: str) -> Caller | None:
    """The holder of the credential; None if something must be read to know it."""
    caller = _admin(services, credential)
    if caller is not None:
        return caller
    if services.tokens is not None and _is_token(credential):
        found = services.tokens.user_at_hand(credential)
        return None if found is None else _user(found)
    return None


async def _look_up(services: Services, credential: str) -> Caller:
    """The holder of a credential that is not known at hand."""
    if services.tokens is not None and _is_token(credential):
        return _user(await services.tokens.user_of(credential))
    key = await services.api_keys.of_digest(hashlib.sha256(credential.encode("utf-8", "surrogateescape")).digest())
    if key is None:
        raise RefusedError(
            UNAUTHORIZED, "The key is unknown, expired or revoked. Create a new one with `claimsvc key create`."
        )
    return Caller(f"key:{key.id}", key.scopes)


def _is_token(credential: str) -> bool:
    return credential.count(".") == _DOTS_OF_A_TOKEN


def _user(found: domain.TokenUser | domain.TokenRefused) -> Caller:
    if isinstance(found, domain.TokenRefused):
        raise RefusedError(UNAUTHORIZED, found.reason)
    return Caller(f"user:{found.user_id}", frozenset(), found.user_id, found.attributes)
