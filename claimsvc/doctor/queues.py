"""Judges the queues of coupons: whether their tickets are started, and what the service has given up."""

from collections.abc import Sequence
from datetime import datetime

from claimsvc.doctor.findings import Findings, ok, wrong
from claimsvc.domain import STALLED_SECONDS, QueueStatus

_MOST_NAMED = 5
_HOLDERS = "SELECT pid, query FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE relation = 'queues'::regclass"


def judge_queues(statuses: Sequence[QueueStatus], now: datetime) -> Findings:
    """Judge the queues in which tickets wait, are started or are dead letters.

    Args:
        statuses: of all of them.
        now: by the database's clock.
    """
    yield from _judge_dead_letters([status for status in statuses if status.dead])
    stalled = [status for status in statuses if status.stalled_seconds(now) > STALLED_SECONDS]
    for status in sorted(stalled, key=lambda each: each.waiting, reverse=True)[:_MOST_NAMED]:
        since = f"none has been started for {status.stalled_seconds(now):.0f} s"
        yield wrong(
            f"queue {status.coupon_name}",
            f"{_tickets(status.waiting)}, the first for {status.waited_seconds(now):.0f} s, and {since}",
            f"see that an instance runs, and read its log; if another session holds its row, end that: {_HOLDERS}",
        )
    if len(stalled) > _MOST_NAMED:
        more = f"{len(stalled) - _MOST_NAMED} more stand still"
        yield wrong("queues", more, "mend the queues above; `claimsvc tickets queues` lists all")
    waiting = [status for status in statuses if status.waiting]
    if waiting and not stalled:
        paused = sum(status.is_paused for status in waiting)
        note = f", {paused} of them paused" if paused else ""
        count = len(waiting)
        yield ok("queues", f"tickets wait in {count} queue{'s' * (count != 1)}{note}")


def _judge_dead_letters(statuses: Sequence[QueueStatus]) -> Findings:
    if not statuses:
        return
    count = sum(status.dead for status in statuses)
    named = [f"{status.coupon_name} ({status.dead})" for status in statuses[:_MOST_NAMED]]
    more = [f"{len(statuses) - _MOST_NAMED} more"] * (len(statuses) > _MOST_NAMED)
    yield wrong(
        "dead letters",
        f"the service has given up the claims of {count} ticket{'s' * (count != 1)}, of {', '.join([*named, *more])}",
        "find out what failed in the log; then `claimsvc tickets requeue ID --reason TEXT` each that "
        "`claimsvc dead-letters` lists, or discard it",
    )


def _tickets(count: int) -> str:
    return "1 ticket waits" if count == 1 else f"{count} tickets wait"
