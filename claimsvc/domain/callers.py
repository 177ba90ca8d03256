"""Who asks: nobody in particular, the holder of a key, or a user."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class Scope(StrEnum):
    """What a key may be for. One that the configuration names is for everything."""

    COUPONS_WRITE = "coupons:write"
    CLAIMS_READ = "claims:read"
    CLAIMS_WRITE = "claims:write"
    CODES_READ = "codes:read"
    CODES_WRITE = "codes:write"
    CODES_REDEEM = "codes:redeem"
    LOCKS_READ = "locks:read"
    LOCKS_WRITE = "locks:write"
    AUDIT_READ = "audit:read"
    USERS_ERASE = "users:erase"


EVERY_SCOPE = frozenset(Scope)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is kept, without what it is itself. Every time is the database's; None is never."""

    id: str
    label: str
    scopes: frozenset[Scope]
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class TokenUser:
    """The user that a token is for, and all that it says."""

    user_id: str
    claims: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TokenRefused:
    """The token proves nothing; `reason` is a sentence for whoever sent it."""

    reason: str


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Args:
        name: tells callers apart, and is the same for each request of one.
        scopes: what the caller may do for whomever.
        user_id: the user that the caller is; None for one that is none.
        token: what the user's token says.
    """

    name: str
    scopes: frozenset[Scope]
    user_id: str | None = None
    token: Mapping[str, Any] = field(default_factory=dict)

    @property
    def actor(self) -> str:
        """The name in the audit, which is kept for ever, and so names no user."""
        return self.name if self.user_id is None else "claimant"

    def sees(self, user_id: str) -> bool:
        """Whether what this user holds may be shown."""
        return user_id == self.user_id or Scope.CLAIMS_READ in self.scopes

    def acts_for(self, user_id: str) -> bool:
        """Whether claims of this user may be made, confirmed and given back."""
        return user_id == self.user_id or Scope.CLAIMS_WRITE in self.scopes


def operator(name: str) -> Caller:
    """Whoever has the database's address may do everything.

    Args:
        name: the operator, as the audit names them.
    """
    return Caller(name, EVERY_SCOPE)


# Where no tokens are set up, users are who they say they are.
ANYBODY = Caller("anybody", frozenset({Scope.CLAIMS_READ, Scope.CLAIMS_WRITE}))
# Where they are, and none was sent.
NOBODY = Caller("nobody", frozenset())
