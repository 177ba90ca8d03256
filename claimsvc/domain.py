"""Coupons, claims, and every answer that a claim can have: values without behaviour, known to every room."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

# What the contract allows. A name of dots only is refused: URLs treat `.` and `..` as steps, so no client could
# ask for it (RFC 3986, section 5.2.4).
COUPON_NAME_PATTERN = r"^\.*[A-Za-z0-9_-][A-Za-z0-9._-]*$"
USER_ID_PATTERN = r"^[!-~]+$"
MAX_NAME_LENGTH = 255
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
