"""Why a lock is waited for, as far as the figures say: who holds it, what its turns are made of, what masters know."""

from claimsvc.domain import HeldLock
from claimsvc.observability.console.formatting import listed, milliseconds, number
from claimsvc.observability.console.locks import STUCK, Looked
from claimsvc.observability.console.picture import CouponRow, InstanceRow, Picture

# Shorter turns are no reason to wait for long: there, it is that many want them.
_LONG_TURN_MS = 25.0
# What makes less of a turn than this does not explain it.
_MOST_OF_IT = 0.5
# Of names that others have written into Redis. Ours are far shorter.
_LONGEST_NAME = 100


def who_holds(picture: Picture, row: CouponRow) -> str:
    """Which instance keeps the lock from moving; empty if none does."""
    if row.holder is None or row.lock != STUCK:
        return ""
    instance = picture.instances[row.holder]
    silent = " and is silent" if instance.silent_seconds else ""
    return f"{instance.name} has held it for {row.held_seconds:.0f} s{silent}."


def long_turn(row: CouponRow) -> str:
    """What the turns at this lock are made of, and what to do if one part is most of them."""
    takers = max(len(row.turns), 1)
    turn = row.turn
    if turn is None:
        held = f", each for {milliseconds(row.hold_ms)} at a time" if row.hold_ms else ""
        return f"Instances that had its lock in the last second: {takers}{held}."
    whole = turn.redis + turn.transactions + turn.rest
    made_of = (
        f"A turn takes {milliseconds(whole)}: Redis {milliseconds(turn.redis)}, transactions "
        f"{milliseconds(turn.transactions)}, the rest {milliseconds(turn.rest)}."
    )
    if whole < _LONG_TURN_MS:
        fewer = " Fewer instances for this coupon would wait less." if takers > 1 else ""
        return f"{made_of} That is not long.{fewer}"
    if turn.transactions >= _MOST_OF_IT * whole:
        return f"{made_of} Look at PostgreSQL first (pg_stat_activity, its disk)."
    if turn.redis >= _MOST_OF_IT * whole:
        return f"{made_of} Look at Redis first: its disk (appendfsync), its network."
    if turn.rest >= _MOST_OF_IT * whole:
        return f"{made_of} Most of it is this service itself: look at its CPU and its event loop."
    return f"{made_of} No part of it stands out."


def refused_by_a_stranger(picture: Picture, row: CouponRow, looked: Looked | None) -> tuple[str, str]:
    """Evidence and advice where attempts are refused and nobody that we hear of holds the lock."""
    attempts = row.acquired + row.busy
    evidence = (
        f"{number(row.busy)} of {number(attempts)} attempts a second found it taken, but our instances held it "
        f"{row.held_share:.0%} of the time."
    )
    if looked is None or looked.locks is None:
        return evidence, "Run `claimsvc locks`: it tells who has the lock, and how much of its life is left."
    held = [lock for lock in looked.locks if lock.is_held]
    if held:
        return _taken(picture, row, evidence, held[0])
    if looked.locks:
        parts = "; ".join(f"{_owner(picture, lock)} on {_life_left(lock)}" for lock in looked.locks[:3])
        return (
            f"{evidence} No majority of the masters has it now: {parts}.",
            "It is changing hands, or what was left over there keeps others from a majority until it expires.",
        )
    return (
        f"{evidence} The masters say that it is free at this moment.",
        "Run `claimsvc locks` some times: who takes it tells nobody here, as an instance of another version does.",
    )


def _taken(picture: Picture, row: CouponRow, evidence: str, lock: HeldLock) -> tuple[str, str]:
    evidence = f"{evidence} On the masters {_owner(picture, lock)} has it: {_life_left(lock)}."
    release = f"`claimsvc locks release {row.name}` gives it back at once, and keeps your reason."
    if not all(lock.ttl_seconds.values()):
        return evidence, f"Where it has no end, nobody of this service has made it, and it stays. {release}"
    left = max(lock.ttl_seconds.values())
    return evidence, f"If that process is dead, the lock becomes free by itself in {left:.0f} s. {release}"


def _owner(picture: Picture, lock: HeldLock) -> str:
    if not lock.holder:
        return "an unknown client, with no instance's token,"
    known = next((instance for instance in picture.instances if instance.id == lock.holder), None)
    return f"{lock.holder[:_LONGEST_NAME]} ({_standing(known)})"


def _standing(instance: InstanceRow | None) -> str:
    if instance is None:
        return "not heard of here"
    return "silent" if instance.silent_seconds else "which does not say so"


def _life_left(lock: HeldLock) -> str:
    told = [
        f"{master} {f'{seconds:.1f} s left' if seconds else 'without end'}"
        for master, seconds in lock.ttl_seconds.items()
    ]
    return listed(told)
