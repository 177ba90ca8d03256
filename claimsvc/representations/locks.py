"""Locks: showing them, and forced release."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from claimsvc import domain
from claimsvc.representations.fields import CouponName, Request


class ReleaseLock(Request):
    """Why a lock is given back by force; the audit keeps it."""

    reason: Annotated[
        str,
        Field(
            min_length=1,
            max_length=domain.MAX_REASON_LENGTH,
            pattern=domain.REASON_PATTERN,
            description="1 to 500 characters on one line, the first of them visible",
            examples=["its instance hangs"],
        ),
    ]


@dataclass(frozen=True, slots=True)
class WaitingBody:
    """An instance that waits for a lock, and for how long."""

    instance: str
    seconds: float


@dataclass(frozen=True, slots=True)
class LockOnMasterBody:
    """A lock on one master, and what is left of its life there."""

    master: str
    ttl_seconds: float


@dataclass(frozen=True, slots=True)
class LockBody:
    """A coupon's lock. `holder` is the instance that took it, null if it does not say; `held` is false while fewer than
    a majority of the masters have it: it is being taken or given back, or was left over. `turn` is the instance that
    was woken for it. `waiting` is in the order of the waiting."""

    coupon_name: CouponName
    holder: str | None
    held: bool
    held_seconds: float
    masters: list[LockOnMasterBody]
    turn: str | None
    waiting: list[WaitingBody]


@dataclass(frozen=True, slots=True)
class LocksBody:
    """The locks of this moment, by coupon. `complete` is false if there are more than are listed."""

    items: list[LockBody]
    complete: bool
    masters: dict[str, Literal["up", "down"]]


@dataclass(frozen=True, slots=True)
class LockReleasedBody:
    """What a forced release came to. On a master that was not reached the lock stays until it expires."""

    coupon_name: CouponName
    holders: list[str]
    released_on: list[str]
    not_reached: list[str]
    woke_another: bool


def locks_body(seen: domain.LocksSeen) -> LocksBody:
    """The locks as they go over the wire."""
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
    """A forced release as it goes over the wire."""
    return LockReleasedBody(
        released.coupon_name,
        list(released.holders),
        list(released.released_on),
        list(released.not_reached),
        released.woke_another,
    )
