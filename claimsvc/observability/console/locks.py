"""What a coupon's figures say of its lock: the one place that decides what is contended, stuck, or another's."""

from collections.abc import Mapping
from dataclasses import dataclass

from claimsvc.domain import HeldLock
from claimsvc.observability.console.picture import Turn
from claimsvc.observability.metrics import Numbers

# From here on most of the time goes into waiting for the lock.
_CONTENDED_SHARE = 0.5
# A lock is held for some milliseconds; who holds one for so long, though others want it, is stuck.
_LONG_HELD_SECONDS = 2.0
# Where attempts are refused and those that we hear held the lock for less of the time than this, others hold it.
_HARDLY_HELD_SHARE = 0.2
_MUCH_REFUSED_SHARE = 0.5
_MUCH_REFUSED_RATE = 10.0
# From the first master that has the key to the last that has given it back, beyond the hold itself.
_CALLS_OF_A_TURN = 2
# A coupon's turns are explained by figures of the whole service only if it makes nearly all of them.
_NEARLY_ALL = 0.8

CONTENDED = "contended"
SOLD_OUT = "sold-out"
STRANGER = "stranger"
STUCK = "stuck"


@dataclass(frozen=True, slots=True)
class Looked:
    """What the masters said of one lock when they were asked; None for the locks if they did not answer."""

    coupon_name: str
    locks: tuple[HeldLock, ...] | None


@dataclass(frozen=True, slots=True)
class LockFigures:
    """What `lock_state` looks at; see `picture.CouponRow`."""

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
    """One word for a lock.

    Returns:
        `none`: the coupon is of a strategy without one.
        `idle`: nobody wants it.
        `stuck`: one instance has it for seconds, though others want it or nothing is decided.
        `stranger`: attempts are refused, though nobody that we hear of holds it.
        `sold-out`: it is taken only to see that nothing is left.
        `contended`: several take turns, and wait longer than they hold it. `shared`: the same, and they wait less.
        `free`: one instance alone takes it.
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
    """Whether those that we hear leave the lock unexplained. What taking and giving back lasts is theirs, too."""
    known = seen.held_share + seen.acquired * _CALLS_OF_A_TURN * seen.call_ms / 1000
    if not seen.busy or known >= _HARDLY_HELD_SHARE:
        return False
    refused = seen.busy / (seen.busy + seen.acquired)
    return not seen.acquired or (seen.busy >= _MUCH_REFUSED_RATE and refused >= _MUCH_REFUSED_SHARE)


def turn_of(
    sums: Numbers, of_all: Mapping[str, float], *, claims_share: float, transaction_seconds: float, call_ms: float
) -> Turn | None:
    """What a turn at a coupon's lock is made of, on average; None if the figures cannot tell.

    Args:
        sums: the coupon's figures of the window.
        of_all: those of all coupons.
        claims_share: how many of all claims were this coupon's.
        transaction_seconds: spent in transactions, for all coupons.
        call_ms: what a call of a master takes.
    """
    holds, held = sums.get("holds", 0.0), sums.get("hold_seconds", 0.0)
    # Long holds are counted when they end: a window has parts of them that it does not know, or one that is not its.
    if holds < 2 or held < _NEARLY_ALL * of_all.get("hold_seconds", 0.0) or claims_share < _NEARLY_ALL:
        return None
    transactions = min(transaction_seconds, held)
    return Turn(
        redis=round(_CALLS_OF_A_TURN * call_ms, 2),
        transactions=round(1000 * transactions / holds, 2),
        rest=round(1000 * (held - transactions) / holds, 2),
    )
