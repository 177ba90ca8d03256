"""Coupons, claims, every answer that a claim can have, and what operators see: values, known to every room."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

# What the contract allows. A name of dots only is refused: URLs treat `.` and `..` as steps, so no client could
# ask for it (RFC 3986, section 5.2.4).
COUPON_NAME_PATTERN = r"^\.*[A-Za-z0-9_-][A-Za-z0-9._-]*$"
USER_ID_PATTERN = r"^[!-~]+$"
MAX_NAME_LENGTH = 255
# One line: no control characters, so that it can be shown anywhere.
REASON_PATTERN = r"^[^\x00-\x20\x7f-\xa0\u2028\u2029][^\x00-\x1f\x7f-\x9f\u2028\u2029]*$"
MAX_REASON_LENGTH = 500
MAX_AMOUNT = 2**31 - 1


class StrategyName(StrEnum):
    """The ways to admit a claim; each coupon has one, chosen when it is created."""

    REDLOCK = "redlock"
    ROW_LOCK = "row_lock"
    COUNTER = "counter"


class ClaimState(StrEnum):
    """Where a claim is in its life."""

    ACTIVE = "active"


@dataclass(frozen=True, slots=True)
class Coupon:
    """A limited stock: `amount` units were offered, `remaining_amount` of them are still to be had."""

    name: str
    amount: int
    remaining_amount: int
    strategy: StrategyName
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Claim:
    """One unit of a coupon, held by one user. `id` is a UUID's usual text, `claimed_at` the database's time."""

    id: str
    coupon_name: str
    user_id: str
    state: ClaimState
    claimed_at: datetime


@dataclass(frozen=True, slots=True)
class CouponDetail:
    """A coupon and its claimants, oldest first, all read in one snapshot."""

    coupon: Coupon
    claimed_by: tuple[str, ...]


# What a claim can come to. Each of these is decided by PostgreSQL; whatever could not be decided is an error.


@dataclass(frozen=True, slots=True)
class Claimed:
    """The claim is committed."""

    claim: Claim


@dataclass(frozen=True, slots=True)
class AlreadyClaimed:
    """The user holds this claim of the coupon already."""

    claim: Claim


@dataclass(frozen=True, slots=True)
class SoldOut:
    """No unit was left, and the user holds none."""


@dataclass(frozen=True, slots=True)
class UnknownCoupon:
    """There is no coupon of that name."""


Outcome = Claimed | AlreadyClaimed | SoldOut | UnknownCoupon


@dataclass(frozen=True, slots=True)
class CouponExists:
    """A coupon of that name exists already; nothing was changed."""


# A place in a listing: the sort key of the last row seen, so that pages stay right while rows are added.


@dataclass(frozen=True, slots=True)
class ClaimPosition:
    """A claim's place among the claims of its coupon, oldest first."""

    claimed_at: datetime
    id: str


# What operators see of the locks, and what they leave behind.


@dataclass(frozen=True, slots=True)
class WaitingInstance:
    """An instance in a lock's line, and for how many seconds it has waited."""

    instance: str
    seconds: float


@dataclass(frozen=True, slots=True)
class HeldLock:
    """A coupon's lock, as the masters had it in one moment.

    `holder` is an instance, empty if its token does not say. `ttl_seconds` is what is left of its life, by the name of
    each master that has it; `is_held` says that these are a majority. With fewer it is being taken or given back, or
    was left over. `held_seconds` is reckoned from this life. `turn` is the instance that was woken for it, if one was.
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


@dataclass(frozen=True, slots=True)
class LockNotHeld:
    """Nobody holds the lock: there is nothing to give back."""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Who did what to which thing, and why. `at` is the database's time, and None until it is written."""

    actor: str
    action: str
    subject_type: str
    subject: str
    reason: str = ""
    request_id: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    at: datetime | None = None
