"""What operators see of the locks, do to them, and leave behind."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from claimsvc.domain.outcomes import Refusal, refusal


@dataclass(frozen=True, slots=True)
class WaitingInstance:
    """An instance in a lock's line, and for how many seconds it has waited."""

    instance: str
    seconds: float


@dataclass(frozen=True, slots=True)
class HeldLock:
    """A coupon's lock, as the masters had it in one moment.

    `holder` is an instance, empty if its token does not say. `ttl_seconds` is what is left of its life, by the name of
    each master that has it, 0 where it has no end; `is_held` says that these are a majority. With fewer it is being
    taken or given back, or was left over. `held_seconds` is reckoned from this life. `turn` is the instance that was
    woken for it, if one was.
    """

    coupon_name: str
    holder: str
    is_held: bool
    held_seconds: float
    ttl_seconds: Mapping[str, float]
    turn: str
    waiting: tuple[WaitingInstance, ...]


@dataclass(frozen=True, slots=True)
class LocksSeen:
    """Every lock of the masters that answer, by coupon; `is_complete` is false if there were too many to be told."""

    masters: tuple[str, ...]
    down: tuple[str, ...]
    locks: tuple[HeldLock, ...]
    is_complete: bool


@dataclass(frozen=True, slots=True)
class LockReleased:
    """A lock was given back by force. A master that was not reached keeps its key until that expires."""

    coupon_name: str
    holders: tuple[str, ...]
    released_on: tuple[str, ...]
    not_reached: tuple[str, ...]
    woke_another: bool


@refusal(
    "lock-not-held",
    404,
    "Nobody holds this lock",
    "No instance holds the lock of this coupon; nothing was released.",
    "Nothing: the lock is free. `GET /api/locks` lists those that are held.",
    is_stored=False,
)
@dataclass(frozen=True, slots=True)
class LockNotHeld(Refusal):
    """No instance holds the lock, so there is nothing to release."""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Who did what to which thing, and why. `at` is the database's time; it and `id` are None until it is written."""

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
    """An entry's place in the audit, newest first."""

    at: datetime
    id: int


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which entries of the audit are asked for: those of which all of this is so. `since` is included."""

    subject_type: str | None = None
    subject: str | None = None
    actor: str | None = None
    action: str | None = None
    since: datetime | None = None
