"""Derives the state of a coupon's lock from its figures: whether it is contended, stuck, or held by a stranger."""

from collections.abc import Mapping
from dataclasses import dataclass

from claimsvc.domain import HeldLock
from claimsvc.observability.console.picture import Turn
from claimsvc.observability.metrics import Numbers

# From this share on, most of the time is spent waiting for the lock.
_CONTENDED_SHARE = 0.5
# A lock is usually held for some milliseconds. One that is held this long while others want it is stuck.
_LONG_HELD_SECONDS = 2.0
# If attempts are refused and the known instances held the lock for less than this share, others hold it.
_HARDLY_HELD_SHARE = 0.2
_MUCH_REFUSED_SHARE = 0.5
_MUCH_REFUSED_RATE = 10.0
# Calls from taking the key on the first master to releasing it on the last, beyond the hold itself.
_CALLS_OF_A_TURN = 2
# Transaction times are known only for the service as a whole. They are attributed to a coupon with this share of it.
_NEARLY_ALL = 0.8

CONTENDED = "contended"
SOLD_OUT = "sold-out"
STRANGER = "stranger"
STUCK = "stuck"


@dataclass(frozen=True, slots=True)
class LockInspection:
    """The state of one coupon's lock on the masters. `locks` is None if they did not answer."""

    coupon_name: str
    locks: tuple[HeldLock, ...] | None


@dataclass(frozen=True, slots=True)
class LockFigures:
    """The input of `lock_state`; see `picture.CouponRow`."""

    is_locked: bool
    is_sold_out: bool
    takers: int
    rate: float
    acquired: float
    busy: float
    waiting_share: float
    held_share: float
    held_seconds: float | None
    call_ms: float


def lock_state(seen: LockFigures) -> str:
    """Classify a lock.

    Returns:
        `none`: the coupon's strategy uses no lock.
        `idle`: no instance takes it.
        `stuck`: one instance has held it for seconds, while others want it or nothing is decided.
        `stranger`: attempts are refused, although no known instance holds it.
        `sold-out`: it is taken only to find that no units are left.
        `contended`: several instances take turns, and wait longer than they hold it.
        `shared`: several instances take turns, and wait less than they hold it.
        `free`: only one instance takes it.
    """
    if not seen.is_locked:
        return "none"
    if not seen.acquired and not seen.busy and not seen.takers:
        return "idle"
    if seen.held_seconds is not None and seen.held_seconds >= _LONG_HELD_SECONDS and (seen.busy or not seen.rate):
        return STUCK
    if seen.held_seconds is None and _is_a_strangers(seen):
        return STRANGER
    if seen.is_sold_out:
        return SOLD_OUT
    if seen.takers > 1:
        return CONTENDED if seen.waiting_share >= _CONTENDED_SHARE else "shared"
    return "free"


def _is_a_strangers(seen: LockFigures) -> bool:
    """Whether the known instances do not explain the refusals. Taking and releasing the lock counts as holding it."""
    known = seen.held_share + seen.acquired * _CALLS_OF_A_TURN * seen.call_ms / 1000
    if not seen.busy or known >= _HARDLY_HELD_SHARE:
        return False
    refused = seen.busy / (seen.busy + seen.acquired)
    return not seen.acquired or (seen.busy >= _MUCH_REFUSED_RATE and refused >= _MUCH_REFUSED_SHARE)


def turn_of(
    sums: Numbers, of_all: Mapping[str, float], *, claims_share: float, transaction_seconds: float, call_ms: float
) -> Turn | None:
    """Compute the parts of an average turn at a coupon's lock; None if the figures do not suffice.

    Args:
        sums: the coupon's figures of the window.
        of_all: the figures of all coupons.
        claims_share: this coupon's share of all claims.
        transaction_seconds: spent in transactions, for all coupons.
        call_ms: duration of a call of a master.
    """
    holds, held = sums.get("holds", 0.0), sums.get("hold_seconds", 0.0)
    # A hold is counted when it ends, so a window may contain parts of holds that are not counted in it, or vice versa.
    if holds < 2 or held < _NEARLY_ALL * of_all.get("hold_seconds", 0.0) or claims_share < _NEARLY_ALL:
        return None
    transactions = min(transaction_seconds, held)
    return Turn(
        redis=round(_CALLS_OF_A_TURN * call_ms, 2),
        transactions=round(1000 * transactions / holds, 2),
        rest=round(1000 * (held - transactions) / holds, 2),
    )
