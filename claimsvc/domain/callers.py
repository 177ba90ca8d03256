"""Callers: anonymous, the holder of an API key, or a user with a token."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from claimsvc.domain.eligibility import Attributes, attributes_of


class Scope(StrEnum):
    """What an API key permits. A key from the configuration permits everything."""

    COUPONS_WRITE = "coupons:write"
    CLAIMS_READ = "claims:read"
    CLAIMS_WRITE = "claims:write"
    CODES_READ = "codes:read"
    CODES_WRITE = "codes:write"
    CODES_REDEEM = "codes:redeem"
    LOCKS_READ = "locks:read"
    LOCKS_WRITE = "locks:write"
    TICKETS_READ = "tickets:read"
    TICKETS_WRITE = "tickets:write"
    AUDIT_READ = "audit:read"
    USERS_ERASE = "users:erase"


EVERY_SCOPE = frozenset(Scope)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A stored API key, without its secret. All times are the database's; None means never."""

    id: str
    label: str
    scopes: frozenset[Scope]
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None


# Not frozen, as `Claim`, because each request may make one.
@dataclass(slots=True, unsafe_hash=True)
class TokenUser:
    """The user that a token identifies, and all claims of the token. Never changed.

    Attributes:
        attributes: the claims that eligibility rules can use.
    """

    user_id: str
    claims: Mapping[str, Any]
    attributes: Attributes = field(init=False, hash=False)

    def __post_init__(self) -> None:
        self.attributes = attributes_of(self.claims)


@dataclass(frozen=True, slots=True)
class TokenRefused:
    """The token was rejected; `reason` is a sentence for its sender."""

    reason: str


@dataclass(slots=True, unsafe_hash=True)
class Caller:
    """The sender of a request. Never changed.

    Args:
        name: identifies the caller; the same for all of its requests.
        scopes: what the caller may do for any user.
        user_id: the authenticated user; None if the caller is not a user.
        attributes: what the user's verified token states, as far as eligibility rules can use it.
    """

    name: str
    scopes: frozenset[Scope]
    user_id: str | None = None
    attributes: Attributes = field(default_factory=dict, hash=False)

    @property
    def is_anonymous(self) -> bool:
        """Whether this is anybody: nothing but the address tells one such caller from another."""
        return self.name in (ANYBODY.name, NOBODY.name)

    @property
    def actor(self) -> str:
        """The name for the audit log. It never names a user, because audit entries cannot be erased."""
        return self.name if self.user_id is None else "claimant"

    def sees(self, user_id: str | None) -> bool:
        """Whether the caller may see this user's claims; with None, whether it may see all claims."""
        return Scope.CLAIMS_READ in self.scopes or (user_id is not None and user_id == self.user_id)

    @property
    def sees_codes(self) -> bool:
        """Whether the caller may see all codes."""
        return Scope.CODES_READ in self.scopes

    def sees_codes_of(self, user_id: str) -> bool:
        """Whether the caller may see the codes of this user's claims."""
        return user_id == self.user_id or self.sees_codes

    def acts_for(self, user_id: str) -> bool:
        """Whether the caller may make, confirm and cancel claims for this user."""
        return user_id == self.user_id or Scope.CLAIMS_WRITE in self.scopes


def operator(name: str) -> Caller:
    """Return a caller with all scopes: access to the database implies every permission.

    Args:
        name: the operator's name in the audit log.
    """
    return Caller(name, EVERY_SCOPE)


# The caller when no tokens are configured: the `user_id` of a request is trusted.
ANYBODY = Caller("anybody", frozenset({Scope.CLAIMS_READ, Scope.CLAIMS_WRITE}))
# The caller when tokens are configured and the request has none.
NOBODY = Caller("nobody", frozenset())
