"""Explains waits for a lock from the figures: its holder, the parts of its turns, its state on the masters."""

import shlex

from claimsvc.domain import HeldLock
from claimsvc.observability.console.formatting import listed, milliseconds, number, percent
from claimsvc.observability.console.locks import STUCK, LockInspection
from claimsvc.observability.console.picture import CouponRow, InstanceRow, Picture

# Shorter turns do not explain long waits; the number of instances does.
_LONG_TURN_MS = 25.0
# A part with a smaller share does not explain a long turn.
_MOST_OF_IT = 0.5
# Limit for names read from Redis. The service's own are far shorter.
_LONGEST_NAME = 100


def describe_holder(picture: Picture, row: CouponRow) -> str:
    """Describe the holder of a stuck lock; empty if the lock is not stuck."""
    if row.holder is None or row.lock != STUCK:
        return ""
    instance = picture.instances[row.holder]
    silent = " and is silent" if instance.silent_seconds else ""
    return f"{instance.name} has held it for {row.held_seconds:.0f} s{silent}."


def explain_turn(row: CouponRow) -> str:
    """Describe the parts of a turn at this lock, with advice if one part dominates a long turn."""
    takers = max(len(row.turns), 1)
    turn = row.turn
    if turn is None:
        held = f", each for {milliseconds(row.hold_ms)} at a time" if row.hold_ms else ""
        return f"Instances that held its lock in the last ten seconds: {takers}{held}."
    total = turn.redis + turn.transactions + turn.rest
    parts = (
        f"A turn takes {milliseconds(total)}: Redis {milliseconds(turn.redis)}, transactions "
        f"{milliseconds(turn.transactions)}, the rest {milliseconds(turn.rest)}."
    )
    if total < _LONG_TURN_MS:
        fewer = " With fewer instances for this coupon, they would wait less." if takers > 1 else ""
        return f"{parts} That is not long.{fewer}"
    if turn.transactions >= _MOST_OF_IT * total:
        return f"{parts} Check PostgreSQL first (pg_stat_activity, its disk)."
    if turn.redis >= _MOST_OF_IT * total:
        return f"{parts} Check Redis first: its disk (appendfsync), its network."
    if turn.rest >= _MOST_OF_IT * total:
        return f"{parts} Most of it is spent in this service: check its CPU and its event loop."
    return f"{parts} No part of it dominates."


def explain_stranger(picture: Picture, row: CouponRow, looked: LockInspection | None) -> tuple[str, str]:
    """Return evidence and advice for a lock that is refused although no known instance holds it."""
    attempts = row.acquired + row.busy
    evidence = (
        f"{number(row.busy)} of {number(attempts)} attempts a second found it taken, but the known instances held it "
        f"for {percent(row.held_share)} of the time."
    )
    if looked is None or looked.locks is None:
        return evidence, "Run `claimsvc locks`: it shows the lock's holder and remaining TTL."
    held = [lock for lock in looked.locks if lock.is_held]
    if held:
        return _taken(picture, row, evidence, held[0])
    if looked.locks:
        parts = "; ".join(f"{_owner(picture, lock)} on {_life_left(lock)}" for lock in looked.locks[:3])
        return (
            f"{evidence} No majority of the masters has it now: {parts}.",
            "It is changing hands, or leftover keys prevent a majority until they expire.",
        )
    return (
        f"{evidence} On the masters it is free at this moment.",
        "Run `claimsvc locks` several times: its holder sends no figures, like an instance of another version.",
    )


def _taken(picture: Picture, row: CouponRow, evidence: str, lock: HeldLock) -> tuple[str, str]:
    evidence = f"{evidence} On the masters {_owner(picture, lock)} has it: {_life_left(lock)}."
    release = f"`claimsvc locks release {shlex.quote(row.name)}` releases it immediately, and records your reason."
    if not all(lock.ttl_seconds.values()):
        return evidence, f"A key without a TTL was not written by this service, and it stays. {release}"
    left = max(lock.ttl_seconds.values())
    return evidence, f"If that process is dead, the lock expires in {left:.0f} s. {release}"


def _owner(picture: Picture, lock: HeldLock) -> str:
    if not lock.holder:
        return "an unknown client, without an instance's token,"
    known = next((instance for instance in picture.instances if instance.id == lock.holder), None)
    return f"{lock.holder[:_LONGEST_NAME]} ({_standing(known)})"


def _standing(instance: InstanceRow | None) -> str:
    if instance is None:
        return "unknown here"
    return "silent" if instance.silent_seconds else "which does not report it"


def _life_left(lock: HeldLock) -> str:
    parts = [
        f"{master} {f'{seconds:.1f} s left' if seconds else 'without a TTL'}"
        for master, seconds in lock.ttl_seconds.items()
    ]
    return listed(parts)
