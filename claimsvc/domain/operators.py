"""Locks as operators see them, and the audit log."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from claimsvc.domain.outcomes import Refusal, refusal


@dataclass(frozen=True, slots=True)
class WaitingInstance:
    """An instance that waits for a lock, and for how many seconds."""

    instance: str
    seconds: float


@dataclass(frozen=True, slots=True)
class HeldLock:
    """A coupon's lock, as the masters stored it at one moment.

    Args:
        coupon_name: the coupon.
        holder: the instance; empty if the lock's token does not name one.
        is_held: whether a majority of the masters has it. With fewer, it is being taken or released, or was left over.
        held_seconds: how long it has been held, computed from the remaining time to live.
        ttl_seconds: the remaining time to live on each master that has it, by name; 0 if it never expires.
        turn: the instance that was woken for it; empty if none was.
        waiting: instances that wait for it.
    """

    coupon_name: str
    holder: str
    is_held: bool
    held_seconds: float
    ttl_seconds: Mapping[str, float]
    turn: str
    waiting: tuple[WaitingInstance, ...]


@dataclass(frozen=True, slots=True)
class RowHolder:
    """A session of PostgreSQL that holds a coupon's row, so that claims of it wait.

    Args:
        coupon_name: the coupon.
        pid: of the session's process.
        application_name, user_name, client: who it is; empty if PostgreSQL does not tell this user.
        state: such as `idle in transaction`; empty as above.
        query: the beginning of its last statement; empty as above.
        seconds: age of its transaction; None if PostgreSQL does not tell this user.
        waiting: sessions that wait for it, for whatever it holds.
    """

    coupon_name: str
    pid: int
    application_name: str
    user_name: str
    client: str
    state: str
    query: str
    seconds: float | None
    waiting: int

    @property
    def who(self) -> str:
        """Who it is, in words: `pid 123 (psql, user ada, from 10.0.0.5)`."""
        known = [
            self.application_name,
            self.user_name and f"user {self.user_name}",
            self.client and f"from {self.client}",
        ]
        return f"pid {self.pid} ({', '.join(filter(None, known)) or 'nothing else is known of it'})"


@dataclass(frozen=True, slots=True)
class LocksSeen:
    """All locks on the masters that respond, by coupon.

    Args:
        masters: the names of all masters.
        down: those that cannot be used.
        locks: by coupon.
        is_complete: false if there were too many to list.
        troubles: why those in `down` cannot be used, and what to do, where it is known.
    """

    masters: tuple[str, ...]
    down: tuple[str, ...]
    locks: tuple[HeldLock, ...]
    is_complete: bool
    troubles: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LockReleased:
    """A lock was released by force. A master that was not reached keeps its key until the key expires."""

    coupon_name: str
    holders: tuple[str, ...]
    released_on: tuple[str, ...]
    not_reached: tuple[str, ...]
    woke_another: bool


@refusal(
    "lock-not-held",
    404,
    "The lock is not held",
    "No instance holds the lock of this coupon; nothing was released.",
    "Nothing: the lock is free. `GET /api/locks` lists those that are held.",
    is_stored=False,
)
@dataclass(frozen=True, slots=True)
class LockNotHeld(Refusal):
    """No instance holds the lock, so there is nothing to release."""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Who did what to which subject, and why.

    Args:
        actor: an operator, the name of a caller, `claimant` for a user, or `clock` for the service itself.
        action: such as `coupon.create`.
        subject_type: such as `coupon`.
        subject: its name or id.
        reason: as given by the actor.
        request_id: None if there was no request.
        details: arbitrary JSON.
        at: the database's time; None until the entry is written.
        id: None until the entry is written.
    """

    actor: str
    action: str
    subject_type: str
    subject: str
    reason: str = ""
    request_id: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    at: datetime | None = None
    id: int | None = None


@dataclass(frozen=True, slots=True)
class AuditPosition:
    """An entry's position in the audit log, newest first."""

    at: datetime
    id: int


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Selects the entries that match every field that is not None; `since` is inclusive."""

    subject_type: str | None = None
    subject: str | None = None
    actor: str | None = None
    action: str | None = None
    since: datetime | None = None
