"""Merges the summaries of all instances into one picture. Only the recently busy coupons are remembered in between."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from claimsvc.domain import Coupon
from claimsvc.observability.console.coupon_rows import AllCoupons, coupon_row, ratio, window_seconds
from claimsvc.observability.console.locks import STRANGER
from claimsvc.observability.console.membership import Heard
from claimsvc.observability.console.objectives import add_up_objectives
from claimsvc.observability.console.picture import (
    MOST_COUPONS,
    OUTCOMES,
    RECENT_SECONDS,
    CouponRow,
    InstanceRow,
    MasterRow,
    Picture,
    describe,
    merge_events,
    quantile_ms,
)
from claimsvc.observability.console.shares import spent, times_of
from claimsvc.observability.console.summary import Recent, Summary, add_up
from claimsvc.observability.metrics import Numbers
from claimsvc.observability.metrics.busiest import OTHER

# Failed attempts to take a lock count as activity, even while no claims are answered.
_ACTIVE = (*OUTCOMES, "attempts-busy")
# A coupon stays on the page for this long after its last claim, so that rows do not come and go while they are read.
_LINGERS_SECONDS = 60.0
_REORDERED_SECONDS = 1.0
# The instances' windows do not end at the same time, so a lock may briefly seem to have no holder.
_STRANGE_AFTER_SECONDS = 1.0


class PictureBuilder:
    """Builds the pictures.

    Args:
        strange_after_seconds: how long a lock must seem to have no holder before it is shown as a stranger's.
    """

    def __init__(self, strange_after_seconds: float = _STRANGE_AFTER_SECONDS) -> None:
        self._strange_after_seconds = strange_after_seconds
        self._strange_since: dict[str, float] = {}
        self._busy_at: dict[str, float] = {}
        self._order: tuple[float, list[str]] = (0.0, [])

    def coupons_shown(self, heard: Sequence[Heard]) -> list[str]:
        """Return the coupons that get a row: busy ones, then recently busy ones, then other known ones.

        The order changes at most once a second, so that the rows can be read.
        """
        now = time.monotonic()
        activity: dict[str, float] = {}
        for each in heard:
            if not each.is_silent:
                for name, numbers in each.summary.span(is_instant=False).coupons.items():
                    activity[name] = activity.get(name, 0.0) + sum(numbers.get(figure, 0.0) for figure in _ACTIVE)
        self._busy_at.update(dict.fromkeys((name for name, claims in activity.items() if claims), now))
        self._busy_at = {name: at for name, at in self._busy_at.items() if now - at < _LINGERS_SECONDS}
        ordered_at, order = self._order
        if now - ordered_at >= _REORDERED_SECONDS or not self._busy_at.keys() <= set(order):
            recent = sorted(self._busy_at, key=lambda name: (-self._busy_at[name], -activity.get(name, 0.0)))
            known = [name for each in heard for name in each.summary.known]
            order = list(dict.fromkeys((*recent, *(name for name in known if name != OTHER))))
            self._order = now, order
        return order[:MOST_COUPONS]

    def build(
        self,
        heard: Sequence[Heard],
        names: Sequence[str],
        stock: Mapping[str, Coupon],
        *,
        hears_others: bool,
        stock_age_seconds: int = 0,
        is_instant: bool = False,
    ) -> Picture:
        """Build the picture.

        Args:
            heard: the summaries, in the order in which the instances are shown.
            names: from `coupons_shown`.
            stock: the coupons, as far as they were read.
            hears_others: whether summaries of other instances can be received.
            stock_age_seconds: see `Picture`.
            is_instant: whether everything is of the last second, as nobody is shown it.
        """
        now = time.time()
        speaking = [each.summary for each in heard if not each.is_silent]
        spans = [each.span(is_instant=is_instant) for each in speaking]
        events = merge_events(heard)
        recent = [event for event, _ in events if now - event.at < RECENT_SECONDS]
        latency = [sum(counts) for counts in zip(*(each.latency for each in speaking), strict=True)]
        time_spent = spent(spans)
        process = add_up(each.process for each in spans)
        totals = AllCoupons(
            add_up(each.all_coupons for each in spans), time_spent.transaction_seconds, 1000 * time_spent.call_seconds
        )
        rows = [coupon_row(name, heard, stock.get(name), recent, totals, is_instant=is_instant) for name in names]
        return Picture(
            coupons=self._strange_for_long_enough(rows),
            instances=[_instance(each, is_instant=is_instant) for each in heard],
            masters=_masters(heard, is_instant=is_instant),
            events=[describe(event, summary) for event, summary in events],
            outcomes=_rates(speaking),
            p50_ms=quantile_ms(latency, 0.5),
            p99_ms=quantile_ms(latency, 0.99),
            waiting=round(sum(each.process.get("waiting", 0.0) for each in speaking)),
            gave_up=sum(event.count for event in recent if event.kind == "gave-up"),
            recent_outcomes=_rates(spans),
            decided=round(process.get("decided", 0.0)),
            slow=round(process.get("slow", 0.0)),
            answered=round(process.get("requests", 0.0)),
            failed=round(process.get("failed", 0.0)),
            times=times_of(time_spent),
            transaction_ms=round(time_spent.transaction_ms, 2),
            lag_ms=round(1000 * time_spent.lag_seconds, 2),
            objectives=add_up_objectives(each.summary.objectives for each in heard),
            hears_others=hears_others,
            stock_age_seconds=stock_age_seconds,
        )

    def _strange_for_long_enough(self, rows: Sequence[CouponRow]) -> list[CouponRow]:
        now = time.monotonic()
        self._strange_since = {row.name: self._strange_since.get(row.name, now) for row in rows if row.lock == STRANGER}
        return [
            replace(row, lock="shared")
            if row.lock == STRANGER and now - self._strange_since[row.name] < self._strange_after_seconds
            else row
            for row in rows
        ]


def _rates(windows: Sequence[Summary | Recent]) -> Numbers:
    rates = {outcome: round(_rate(windows, outcome), 1) for outcome in OUTCOMES}
    return {outcome: rate for outcome, rate in rates.items() if rate}


def _rate(summaries: Sequence[Summary | Recent], figure: str) -> float:
    return sum(each.all_coupons.get(figure, 0.0) / window_seconds(each) for each in summaries)


def _instance(heard: Heard, *, is_instant: bool) -> InstanceRow:
    summary, process = heard.summary, heard.summary.process
    offset = heard.clock_offset_seconds
    span = summary.span(is_instant=is_instant).process
    down = [name for name, (is_up, *_) in summary.masters.items() if not is_up]
    return InstanceRow(
        id=summary.id,
        name=summary.name,
        is_here=heard.is_here,
        started_at=round(summary.started_at + offset, 1),
        restarts=heard.restarts,
        silent_seconds=round(heard.age_seconds, 1) if heard.is_silent else 0.0,
        health={
            name: replace(state, since=round(state.since + offset, 1), checked_at=round(state.checked_at + offset, 1))
            for name, state in summary.health.items()
        },
        masters_down=down,
        has_quorum=len(down) <= len(summary.masters) // 2,
        rate=0.0 if heard.is_silent else round(sum(_rate([summary], outcome) for outcome in OUTCOMES), 1),
        waiting=round(process.get("waiting", 0.0)),
        lock_waiters=round(process.get("lock_waiters", 0.0)),
        pool_in_use=round(process.get("pool_in_use", 0.0)),
        pool_size=summary.pool_size,
        transaction_ms=round(1000 * ratio(span.get("transaction_seconds", 0.0), span.get("transactions", 0.0)), 2),
    )


def _masters(heard: Sequence[Heard], *, is_instant: bool) -> list[MasterRow]:
    """Merge the instances' views of the masters. Silent instances are ignored, because their view may be outdated."""
    views: dict[str, list[tuple[int, bool, int, float]]] = {}
    for number, each in enumerate(heard):
        if not each.is_silent:
            span = each.summary.span(is_instant=is_instant)
            for name, (is_up, calls, seconds) in span.masters.items():
                views.setdefault(name, []).append((number, is_up, calls, seconds))
    return [
        MasterRow(
            name,
            up_at=[number for number, is_up, _, _ in each if is_up],
            down_at=[number for number, is_up, _, _ in each if not is_up],
            call_ms=round(
                1000
                * ratio(
                    sum(seconds for _, is_up, _, seconds in each if is_up),
                    sum(calls for _, is_up, calls, _ in each if is_up),
                ),
                2,
            ),
        )
        for name, each in views.items()
    ]
