"""Who may do what. A route says whom it is for; here is found out who asks, and whether that is so.

Who runs the service has keys, of which it knows only the digests. Users have tokens, where those are set up; where they
are not, nobody is asked who claims.
"""

import hashlib
import hmac
from dataclasses import dataclass
from enum import Enum

from aiohttp import hdrs, web

from claimsvc import domain
from claimsvc.domain import Caller, Scope
from claimsvc.domain.problems import FORBIDDEN, UNAUTHORIZED
from claimsvc.http.framework.services import ACTOR, CALLER, SERVICES, Services
from claimsvc.http.server.problems import RefusedError

# Enough of a digest to tell which of some dozens of keys it was, and of no use for finding the key.
_SHOWN_DIGITS = 12
# The three parts of a JSON Web Token; no key that we make has a dot.
_DOTS_OF_A_TOKEN = 2


class Asked(Enum):
    """When the caller is asked who it is."""

    NEVER = "never"
    ALWAYS = "always"
    WITH_TOKENS = "where tokens are set up"
    IF_GIVEN = "where tokens are set up and one was sent, to be shown more"


@dataclass(frozen=True, slots=True)
class Access:
    """Whom a route is for: keys with this scope, and users where `for_users`, who do and see only what is theirs."""

    asked: Asked
    scope: Scope | None = None
    for_users: bool = False


OPEN = Access(Asked.NEVER)


def only(scope: Scope) -> Access:
    """For keys with this scope alone, whatever is set up."""
    return Access(Asked.ALWAYS, scope)


def users_and(scope: Scope) -> Access:
    """For users, each for itself, and for keys with this scope; for all where no tokens are set up."""
    return Access(Asked.WITH_TOKENS, scope, for_users=True)


def unless_open(scope: Scope) -> Access:
    """For keys with this scope; for all where no tokens are set up."""
    return Access(Asked.WITH_TOKENS, scope)


# For all. What it shows of users is for them and for keys that may read claims.
SHOWS_USERS = Access(Asked.IF_GIVEN, for_users=True)


async def authorize(request: web.Request, access: Access) -> Caller:
    """Let the request pass if the route is for its caller, which is noted with the request.

    Raises:
        RefusedError: nobody in particular asks, or somebody else.
        UnavailableError: it cannot be found out who asks.
    """
    caller = await _caller(request.app[SERVICES], access, request.headers.get(hdrs.AUTHORIZATION, ""))
    request[CALLER], request[ACTOR] = caller, caller.actor
    return caller


async def _caller(services: Services, access: Access, authorization: str) -> Caller:
    if access.asked is Asked.NEVER or (services.tokens is None and access.asked is not Asked.ALWAYS):
        return domain.ANYBODY
    if access.asked is Asked.IF_GIVEN and not authorization:
        return domain.NOBODY
    scheme, _, credential = authorization.partition(" ")
    if scheme.lower() != "bearer" or not credential.strip():
        raise RefusedError(UNAUTHORIZED)
    caller = await _identify(services, credential.strip())
    if access.scope is None:
        return caller
    if access.for_users if caller.user_id is not None else access.scope in caller.scopes:
        return caller
    raise RefusedError(FORBIDDEN, f"The key or token is good, but this is for keys with the scope `{access.scope}`.")


async def _identify(services: Services, credential: str) -> Caller:
    digest = hashlib.sha256(credential.encode("utf-8", "surrogateescape"))
    # Every digest is compared, each in constant time: how long it takes tells nothing of which one was close.
    if sum([hmac.compare_digest(digest.hexdigest(), known) for known in services.admin_key_digests]):
        return Caller(f"admin-key:{digest.hexdigest()[:_SHOWN_DIGITS]}", domain.EVERY_SCOPE)
    if services.tokens is not None and credential.count(".") == _DOTS_OF_A_TOKEN:
        found = await services.tokens.user_of(credential)
        if isinstance(found, domain.TokenRefused):
            raise RefusedError(UNAUTHORIZED, found.reason)
        return Caller(f"user:{found.user_id}", frozenset(), found.user_id, found.claims)
    key = await services.api_keys.of_digest(digest.digest())
    if key is None:
        raise RefusedError(
            UNAUTHORIZED, "The key is not known here, or not good any more; `claimsvc key create` makes keys."
        )
    return Caller(f"key:{key.id}", key.scopes)
