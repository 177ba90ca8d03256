"""The picture in one sentence: what is going on, and what to do about it. The worst that is true is what is said."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from claimsvc.live.picture import OTHER, RECENT_SECONDS, CouponRow, Picture

# A lock is held for some milliseconds; who holds one for so long is stuck.
_LONG_HELD_SECONDS = 2.0
_SLOW_TRANSACTION_MS = 50.0
_SLOW_TURN_MS = 20.0
_SLOW_CALL_MS = 20.0
# From here on most of the time goes into waiting for the lock.
_CONTENDED_SHARE = 0.5
_MUCH_WAITING = 100
# A coupon that gets this share of all claims is the hot one.
_HOT_SHARE = 0.6
_BUSY_RATE = 20.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is going on. `level` is `quiet`, `good`, `warning` or `bad`; `advice` may be empty."""

    level: str
    text: str
    advice: str


def judge(picture: Picture) -> Verdict:
    """The first that applies, the worst first."""
    for rule in _RULES:
        for verdict in rule(picture):
            return verdict
    return Verdict("quiet", "All is quiet: nobody is claiming.", "")


def _quorum_lost(picture: Picture) -> Iterator[Verdict]:
    down = [master.name for master in picture.masters if master.down_for > master.up_for]
    if len(down) > len(picture.masters) // 2:
        yield Verdict(
            "bad",
            f"Redis: {len(down)} of {len(picture.masters)} masters are down, so claims under the lock fail.",
            f"Bring back {_and(down)}; claims go on within seconds. Coupons of the strategy row_lock are not affected.",
        )


def _broken(picture: Picture) -> Iterator[Verdict]:
    if rate := picture.outcomes.get("internal-error"):
        yield Verdict(
            "bad",
            f"{_number(rate)} claims a second meet an internal error.",
            "The log has the reason, with the level error; it is a defect, so report it.",
        )


def _unavailable(picture: Picture) -> Iterator[Verdict]:
    rate = picture.outcomes.get("unavailable", 0.0)
    if not rate:
        return
    if any(row.pool_in_use >= row.pool_size for row in picture.instances if not row.silent_seconds):
        yield Verdict(
            "bad",
            f"PostgreSQL cannot keep up: {_number(rate)} claims a second fail, and every connection is in use.",
            f"A transaction takes {_ms(picture.transaction_ms)}: look for what blocks them (pg_stat_activity).",
        )
    yield Verdict(
        "bad",
        f"{_number(rate)} claims a second fail, because PostgreSQL does not answer or this service is full.",
        "See /readyz?verbose for what is down.",
    )


def _gave_up(picture: Picture) -> Iterator[Verdict]:
    worst = max(picture.coupons, key=lambda row: row.gave_up, default=None)
    if worst is None or not worst.gave_up:
        return
    left = "" if worst.remaining is None else f", with {worst.remaining:,} units left"
    text = (
        f"{worst.name}: {worst.gave_up:,} claims gave up waiting for the lock in the last {RECENT_SECONDS:.0f} s{left}."
    )
    yield Verdict("bad", text, _who_holds(picture, worst) or _why_long(picture, worst))


def _why_long(picture: Picture, row: CouponRow) -> str:
    if picture.transaction_ms >= _SLOW_TURN_MS:
        return (
            f"Each turn is long, because a transaction takes {_ms(picture.transaction_ms)}: look at PostgreSQL first."
        )
    return (
        f"Instances that want its lock: {max(len(row.turns), 1)}, each for {_ms(row.hold_ms)} at a time. Send this "
        "coupon to fewer of them, or slow its callers down."
    )


def _long_held(picture: Picture) -> Iterator[Verdict]:
    for row in picture.coupons:
        if _is_stuck(row):
            yield Verdict("warning", f"The lock of {row.name} does not move: {_who_holds(picture, row)}", _PAUSED)
        if row.holder is None and row.busy and not row.acquired and not row.rate:
            yield Verdict(
                "warning",
                f"The lock of {row.name} is held by nobody that we hear of, and others wait for it.",
                "Its holder has died or hangs; the lock becomes free by itself, at the latest after its TTL.",
            )


_PAUSED = "That process is paused, or its transaction is stuck; the others go on after the lock's TTL at the latest."


def _is_stuck(row: CouponRow) -> bool:
    """Whether the lock is held too long. While nobody else wants it, and claims go on, it is kept on purpose."""
    return row.holder is not None and row.held_seconds >= _LONG_HELD_SECONDS and bool(row.busy or not row.rate)


def _who_holds(picture: Picture, row: CouponRow) -> str:
    if row.holder is None or not _is_stuck(row):
        return ""
    instance = picture.instances[row.holder]
    silent = " and is silent" if instance.silent_seconds else ""
    return f"{instance.name} has held it for {row.held_seconds:.0f} s{silent}."


def _slow_database(picture: Picture) -> Iterator[Verdict]:
    if picture.transaction_ms >= _SLOW_TRANSACTION_MS:
        yield Verdict(
            "warning",
            f"Claims wait for PostgreSQL: a transaction takes {_ms(picture.transaction_ms)}.",
            "Look for what blocks it (pg_stat_activity), and at its disk: every batch waits for one flush.",
        )


def _slow_redis(picture: Picture) -> Iterator[Verdict]:
    slow = [row for row in picture.masters if row.call_ms >= _SLOW_CALL_MS and row.up_for]
    if len(slow) > len(picture.masters) // 2:
        yield Verdict(
            "warning",
            f"Claims wait for Redis: a call takes {_ms(max(row.call_ms for row in slow))}.",
            f"Look at {_and([row.name for row in slow])}: its disk (appendfsync), its network, its other users.",
        )


def _master_down(picture: Picture) -> Iterator[Verdict]:
    down = [master.name for master in picture.masters if master.down_for]
    if down:
        spare = (len(picture.masters) - 1) // 2 - len(down)
        more = "one more would stop claims under the lock" if spare <= 0 else f"{spare} more may fail"
        yield Verdict(
            "warning",
            f"{len(down)} of {len(picture.masters)} masters {'is' if len(down) == 1 else 'are'} down: claims go on, "
            f"but {more}.",
            f"Bring back {_and(down)} with its data, and no hurry that loses it.",
        )


def _contended(picture: Picture) -> Iterator[Verdict]:
    for row in sorted(picture.coupons, key=lambda row: row.acquired + row.busy, reverse=True):
        takers = len(row.turns)
        if takers > 1 and row.waiting_share >= _CONTENDED_SHARE and row.name != OTHER:
            yield Verdict(
                "warning" if row.wait_ms >= 100 else "good",
                f"{row.name} is contended: {takers} instances take turns, and {row.waiting_share:.0%} of their time is "
                f"waiting for its lock ({_ms(row.wait_ms)} each time).",
                "Nobody gave up, so nothing need be done; fewer instances for this coupon would wait less.",
            )


def _queueing(picture: Picture) -> Iterator[Verdict]:
    if picture.waiting >= _MUCH_WAITING and picture.p99_ms is not None and picture.p99_ms >= 1000:
        yield Verdict(
            "warning",
            f"{picture.waiting:,} claims are waiting, and the slowest take {_ms(picture.p99_ms)}.",
            "More claims arrive than are decided: start more instances, or wait until the rush is over.",
        )


def _busy(picture: Picture) -> Iterator[Verdict]:
    rows = sorted(picture.coupons, key=lambda row: row.rate, reverse=True)
    total = sum(row.rate for row in rows)
    if total < 1:
        return
    hottest = rows[0]
    if hottest.outcomes.get("sold-out", 0.0) > hottest.rate / 2 and hottest.rate >= _HOT_SHARE * total:
        yield Verdict(
            "good", f"{hottest.name} is sold out, and still asked for {_number(hottest.rate)} times a second.", ""
        )
    if hottest.rate >= max(_HOT_SHARE * total, _BUSY_RATE):
        wait = (
            "nobody else wants its lock" if len(hottest.turns) < 2 else f"its lock is had after {_ms(hottest.wait_ms)}"
        )
        yield Verdict("good", f"{hottest.name} is hot: {_number(hottest.rate)} claims a second; {wait}.", "")
    yield Verdict(
        "good",
        f"{_number(total)} claims a second on {sum(row.rate > 0 for row in rows)} coupons; none is contended.",
        "",
    )


_RULES: tuple[Callable[[Picture], Iterator[Verdict]], ...] = (
    _quorum_lost,
    _broken,
    _gave_up,
    _long_held,
    _unavailable,
    _slow_database,
    _slow_redis,
    _master_down,
    _queueing,
    _contended,
    _busy,
)


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1 else f"{value:.1f}"


def _ms(value: float) -> str:
    return f"{value / 1000:.1f} s" if value >= 1000 else f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms"
