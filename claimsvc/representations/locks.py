"""Locks: showing them, and forced release."""

from dataclasses import dataclass
from typing import Literal

from claimsvc import domain
from claimsvc.representations.fields import CouponName


@dataclass(frozen=True, slots=True)
class WaitingBody:
    """An instance that waits for a lock, and for how many seconds it has been waiting."""

    instance: str
    seconds: float


@dataclass(frozen=True, slots=True)
class LockOnMasterBody:
    """A lock on one master, and the seconds until it expires there."""

    master: str
    ttl_seconds: float


@dataclass(frozen=True, slots=True)
class LockBody:
    """A coupon's lock. `holder` is the instance that acquired it; null if unknown. `held` is false if fewer than a
    majority of the masters have the lock: it is being acquired or released, or was left behind. `turn` is the instance
    that was woken to acquire it next. `waiting` is in queue order."""

    coupon_name: CouponName
    holder: str | None
    held: bool
    held_seconds: float
    masters: list[LockOnMasterBody]
    turn: str | None
    waiting: list[WaitingBody]


@dataclass(frozen=True, slots=True)
class LocksBody:
    """The current locks, ordered by coupon. `complete` is false if the list is truncated."""

    items: list[LockBody]
    complete: bool
    masters: dict[str, Literal["up", "down"]]


@dataclass(frozen=True, slots=True)
class LockReleasedBody:
    """The result of a forced release. On the masters in `not_reached` the lock stays until it expires."""

    coupon_name: CouponName
    holders: list[str]
    released_on: list[str]
    not_reached: list[str]
    woke_another: bool


def locks_body(seen: domain.LocksSeen) -> LocksBody:
    """The body of the list of locks."""
    items = [
        LockBody(
            lock.coupon_name,
            lock.holder or None,
            lock.is_held,
            round(lock.held_seconds, 3),
            [LockOnMasterBody(*each) for each in lock.ttl_seconds.items()],
            lock.turn or None,
            [WaitingBody(each.instance, round(each.seconds, 3)) for each in lock.waiting],
        )
        for lock in seen.locks
    ]
    return LocksBody(items, seen.is_complete, {name: "down" if name in seen.down else "up" for name in seen.masters})


def lock_released_body(released: domain.LockReleased) -> LockReleasedBody:
    """The body of the result of a forced release."""
    return LockReleasedBody(
        released.coupon_name,
        list(released.holders),
        list(released.released_on),
        list(released.not_reached),
        released.woke_another,
    )
