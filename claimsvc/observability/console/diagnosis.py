"""Summarizes the picture in one sentence, with its evidence and advice: the worst condition that applies.

A sentence claims only what its figures show. It says so when a condition has ended. Where the figures show no single
cause, it reports what is known.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from claimsvc.observability.console.explanations import describe_holder, explain_stranger, explain_turn
from claimsvc.observability.console.formatting import instances, listed, milliseconds, number, times
from claimsvc.observability.console.locks import CONTENDED, SOLD_OUT, STRANGER, STUCK, LockInspection
from claimsvc.observability.console.picture import RECENT_SECONDS, CouponRow, Picture
from claimsvc.observability.metrics.busiest import OTHER

_SLOW_TRANSACTION_MS = 50.0
_SLOW_CALL_MS = 20.0
_MUCH_WAITING = 100
# A coupon is hot if it gets this share of all claims.
_HOT_SHARE = 0.6
_BUSY_RATE = 20.0
# A claim waits 1.5 s before it gives up. If none has given up for this long, the condition has ended.
_OVER_AFTER_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """The state of the service.

    Args:
        kind: identifies the condition and its subject, independently of the figures.
        level: `quiet`, `good`, `warning` or `bad`.
        text: one sentence.
        evidence: the figures that support it; may be empty.
        advice: what to do; may be empty.
    """

    kind: str
    level: str
    text: str
    evidence: str = ""
    advice: str = ""


Check = Callable[[Picture, LockInspection | None], Iterator[Verdict]]


def judge(picture: Picture, looked: LockInspection | None = None) -> Verdict:
    """Return the first verdict that applies, in the order from worst to best.

    Args:
        picture: the merged figures.
        looked: the masters' state of the lock that `suspect` named, if they were asked.
    """
    for check in _CHECKS:
        for verdict in check(picture, looked):
            return verdict
    return Verdict("quiet", "quiet", "All is quiet: there are no claims.")


def suspect(picture: Picture) -> str | None:
    """Return the coupon whose lock should be inspected on the masters, if any."""
    rows = [row for row in picture.coupons if row.lock == STRANGER]
    return max(rows, key=lambda row: (row.gave_up, row.busy)).name if rows else None


def _quorum_lost(picture: Picture, _: LockInspection | None) -> Iterator[Verdict]:
    speaking = [place for place, row in enumerate(picture.instances) if not row.silent_seconds]
    without = [place for place in speaking if not picture.instances[place].has_quorum]
    down = [row.name for row in picture.masters if row.down_at]
    if not without:
        return
    advice = (
        f"Restart {listed(down)}; claims continue within seconds. Coupons with the strategy row_lock are not affected."
    )
    if len(without) == len(speaking):
        text = f"Redis: {len(down)} of {len(picture.masters)} masters are down, so claims under the lock fail."
        yield Verdict("quorum", "bad", text, advice=advice)
    yield Verdict(
        "quorum-of-some",
        "bad",
        f"Claims under the lock fail at {instances(picture, without)}: they reach no majority of the masters.",
        _who_sees_down(picture),
        "Other instances reach them. Check the network of these instances, or remove them from the load balancer.",
    )


def _who_sees_down(picture: Picture) -> str:
    return " ".join(
        f"{row.name} is down for {_seen_by(picture, row.down_at)}." for row in picture.masters if row.down_at
    )


def _seen_by(picture: Picture, places: list[int]) -> str:
    speaking = sum(not row.silent_seconds for row in picture.instances)
    if len(places) == speaking:
        return "every instance" if speaking > 1 else "this instance"
    return f"{instances(picture, places)}, not for {'the other' if speaking - len(places) == 1 else 'the others'}"


def _broken(picture: Picture, _: LockInspection | None) -> Iterator[Verdict]:
    if rate := picture.outcomes.get("internal-error"):
        yield Verdict(
            "broken",
            "bad",
            f"{number(rate)} claims a second fail with an internal error.",
            advice="This is a defect. The log has its cause at level error; report it.",
        )


def _stranger(picture: Picture, looked: LockInspection | None) -> Iterator[Verdict]:
    """Checked before claims that gave up, because it explains them."""
    name = suspect(picture)
    for row in picture.coupons:
        if row.name == name:
            known = looked if looked is not None and looked.coupon_name == name else None
            evidence, advice = explain_stranger(picture, row, known)
            text = f"{name}: the lock is refused, although no known instance holds it."
            yield Verdict(f"stranger {name}", "bad" if row.gave_up else "warning", text, evidence, advice)


def _gave_up(picture: Picture, _: LockInspection | None) -> Iterator[Verdict]:
    rows = [row for row in picture.coupons if row.gave_up and not _is_over(row)]
    for row in sorted(rows, key=lambda row: (row.remaining == 0, -row.gave_up)):
        evidence = f"{_given_up(row)}."
        if row.remaining == 0:
            text = f"{row.name} is sold out, and some claims timed out on the lock before they got this answer."
            yield Verdict(f"gave-up-late {row.name}", "warning", text, evidence, explain_turn(row))
        left = "" if row.remaining is None else " with stock left"
        yield Verdict(
            f"gave-up {row.name}",
            "bad",
            f"{row.name}: claims gave up waiting for the lock{left}.",
            evidence,
            describe_holder(picture, row) or explain_turn(row),
        )


def _gave_up_before(picture: Picture, _: LockInspection | None) -> Iterator[Verdict]:
    rows = [row for row in picture.coupons if row.gave_up]
    for row in sorted(rows, key=lambda row: -row.gave_up):
        now = f"{number(row.rate)} claims a second are answered" if row.rate >= 1 else "there are hardly any claims"
        yield Verdict(
            f"gave-up-before {row.name}",
            "warning",
            f"{row.name}: claims gave up waiting for the lock. That has ended.",
            f"{_given_up(row)}; now {now}.",
            "The current figures no longer show the cause: see the events and the dashboards.",
        )


def _is_over(row: CouponRow) -> bool:
    return (row.gave_up_age_seconds or 0) >= _OVER_AFTER_SECONDS


def _given_up(row: CouponRow) -> str:
    return f"In {RECENT_SECONDS:.0f} s {times(row.gave_up, 'claim')} gave up, the last {row.gave_up_age_seconds} s ago"


def _long_held(picture: Picture, _: LockInspection | None) -> Iterator[Verdict]:
    for row in picture.coupons:
        if row.lock == STUCK:
            yield Verdict(
                f"stuck {row.name}",
                "warning",
                f"The lock of {row.name} is stuck: {describe_holder(picture, row)}",
                advice="The process is paused, or its transaction is blocked. Other instances can continue once the "
                "lock's TTL has passed.",
            )


def _unavailable(picture: Picture, _: LockInspection | None) -> Iterator[Verdict]:
    rate = picture.outcomes.get("unavailable", 0.0)
    if not rate:
        return
    if any(row.pool_in_use >= row.pool_size for row in picture.instances if not row.silent_seconds):
        yield Verdict(
            "pool",
            "bad",
            f"PostgreSQL cannot keep up: {number(rate)} claims a second fail, and every connection is in use.",
            f"A transaction takes {milliseconds(picture.transaction_ms)}, including the wait for a connection.",
            "Find out what blocks the transactions (pg_stat_activity).",
        )
    yield Verdict(
        "unavailable",
        "bad",
        f"{number(rate)} claims a second fail, because a dependency does not answer or this service is overloaded.",
        advice="/readyz?verbose shows what is down.",
    )


def _slow(picture: Picture, _: LockInspection | None) -> Iterator[Verdict]:
    """PostgreSQL, Redis, or both: then a resource that they share is probably slow."""
    slow = [row for row in picture.masters if row.call_ms >= _SLOW_CALL_MS]
    is_redis = len(slow) > len(picture.masters) // 2
    is_postgresql = picture.transaction_ms >= _SLOW_TRANSACTION_MS
    call = milliseconds(max((row.call_ms for row in picture.masters), default=0.0))
    transaction = milliseconds(picture.transaction_ms)
    if is_redis and is_postgresql:
        yield Verdict(
            "slow-both",
            "warning",
            "Claims wait for Redis and for PostgreSQL.",
            f"A call of a master takes up to {call}, a transaction {transaction}.",
            "First check what they share: the CPU of the instances, the network, a disk.",
        )
    if is_postgresql:
        yield Verdict(
            "slow-postgresql",
            "warning",
            f"Claims wait for PostgreSQL: a transaction takes {transaction}.",
            f"Redis is not slow: a call takes up to {call}.",
            "Find out what blocks it (pg_stat_activity), and check its disk: every batch waits for one flush.",
        )
    if is_redis:
        yield Verdict(
            "slow-redis",
            "warning",
            f"Claims wait for Redis: a call takes {call}.",
            f"PostgreSQL is not slow: a transaction takes {transaction}." if picture.transaction_ms else "",
            f"Check {listed([row.name for row in slow])}: disk (appendfsync), network, other users.",
        )


def _master_down(picture: Picture, _: LockInspection | None) -> Iterator[Verdict]:
    down = [row.name for row in picture.masters if row.down_at]
    if not down:
        return
    spare = (len(picture.masters) - 1) // 2 - max(
        (len(row.masters_down) for row in picture.instances if not row.silent_seconds), default=0
    )
    more = "one more would stop claims under the lock" if spare <= 0 else f"{spare} more may fail"
    yield Verdict(
        "master-down",
        "warning",
        f"{len(down)} of {len(picture.masters)} masters {'is' if len(down) == 1 else 'are'} down: claims continue, "
        f"but {more}.",
        _who_sees_down(picture),
        f"Restart {listed(down)} with its data; do not start it empty."
        if all(not row.up_at for row in picture.masters if row.down_at)
        else "Some instances reach masters that others do not: check the network between them first.",
    )


def _contended(picture: Picture, _: LockInspection | None) -> Iterator[Verdict]:
    for row in sorted(picture.coupons, key=lambda row: row.acquired + row.busy, reverse=True):
        if row.lock == CONTENDED and row.name != OTHER:
            yield Verdict(
                f"contended {row.name}",
                "warning" if row.wait_ms >= 100 else "good",
                f"{row.name} is contended: {len(row.turns)} instances take turns, and {row.waiting_share:.0%} of their "
                f"time is waiting for its lock ({milliseconds(row.wait_ms)} each time).",
                f"{_refused(row)}It was held for {row.held_share:.0%} of the last second.",
                f"No claim gave up, so no action is needed. {explain_turn(row)}",
            )


def _refused(row: CouponRow) -> str:
    return f"{row.busy_share:.0%} of the attempts found it busy. " if row.busy_share else ""


def _queueing(picture: Picture, _: LockInspection | None) -> Iterator[Verdict]:
    if picture.waiting >= _MUCH_WAITING and picture.p99_ms is not None and picture.p99_ms >= 1000:
        yield Verdict(
            "queueing",
            "warning",
            f"{picture.waiting:,} claims are waiting, and the slowest take {milliseconds(picture.p99_ms)}.",
            advice="Claims arrive faster than they are decided: start more instances, or wait until the peak is over.",
        )


def _busy(picture: Picture, _: LockInspection | None) -> Iterator[Verdict]:
    rows = sorted(picture.coupons, key=lambda row: row.rate, reverse=True)
    total = sum(row.rate for row in rows)
    if total < 1:
        return
    hottest = rows[0]
    name, rate = hottest.name, number(hottest.rate)
    if hottest.lock == SOLD_OUT or hottest.outcomes.get("sold-out", 0.0) > hottest.rate / 2:
        if hottest.rate >= _HOT_SHARE * total:
            text = f"{name} is sold out, and still gets {rate} claims a second."
            yield Verdict(f"sold-out {name}", "good", text)
    elif hottest.outcomes.get("not-open", 0.0) > hottest.rate / 2:
        text = (
            f"{name} is not open (not started, paused, ended, or users not eligible), and gets {rate} claims a second."
        )
        yield Verdict(f"not-open {name}", "good", text)
    elif hottest.rate >= max(_HOT_SHARE * total, _BUSY_RATE):
        wait = (
            "one instance uses its lock"
            if len(hottest.turns) < 2
            else f"the wait for its lock is {milliseconds(hottest.wait_ms)}"
        )
        yield Verdict(f"hot {name}", "good", f"{name} is hot: {rate} claims a second; {wait}.")
    yield Verdict(
        "busy",
        "good",
        f"{number(total)} claims a second on {times(sum(row.rate > 0 for row in rows), 'coupon')}; none is contended.",
    )


_CHECKS: tuple[Check, ...] = (
    _quorum_lost,
    _broken,
    _stranger,
    _gave_up,
    _long_held,
    _unavailable,
    _slow,
    _master_down,
    _queueing,
    _gave_up_before,
    _contended,
    _busy,
)
