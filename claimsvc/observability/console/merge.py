"""Merges the summaries of all instances into one picture. Only the recently busy coupons are remembered in between."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from claimsvc.domain import Coupon, StrategyName
from claimsvc.observability.console.events import Event
from claimsvc.observability.console.locks import STRANGER, LockFigures, lock_state, turn_of
from claimsvc.observability.console.membership import Heard
from claimsvc.observability.console.picture import (
    MOST_COUPONS,
    OUTCOMES,
    RECENT_SECONDS,
    CouponRow,
    InstanceRow,
    MasterRow,
    Picture,
    Times,
    describe,
    merge_events,
    quantile_ms,
)
from claimsvc.observability.console.summary import Summary, add_up
from claimsvc.observability.metrics import Numbers
from claimsvc.observability.metrics.busiest import OTHER

# Failed attempts to take a lock count as activity, even while no claims are answered.
_ACTIVE = (*OUTCOMES, "attempts-busy")
# A coupon stays on the page for this long after its last claim, so that rows do not come and go while they are read.
_LINGERS_SECONDS = 60.0
_REORDERED_SECONDS = 1.0
_SMALLEST_WINDOW_SECONDS = 0.05
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
                for name, numbers in each.summary.coupons.items():
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
    ) -> Picture:
        """Build the picture.

        Args:
            heard: the summaries; this instance's first.
            names: from `coupons_shown`.
            stock: the coupons, as far as they were read.
            hears_others: whether summaries of other instances can be received.
            stock_age_seconds: see `Picture`.
        """
        now = time.time()
        speaking = [each.summary for each in heard if not each.is_silent]
        events = merge_events(heard)
        recent = [event for event, _ in events if now - event.at < RECENT_SECONDS]
        outcomes = {outcome: _rate(speaking, outcome) for outcome in OUTCOMES}
        latency = [sum(counts) for counts in zip(*(each.latency for each in speaking), strict=True)]
        transactions = sum(each.process.get("transactions", 0.0) for each in speaking)
        transaction_seconds = sum(each.process.get("transaction_seconds", 0.0) for each in speaking)
        call_seconds = _call_seconds(speaking)
        figures = add_up(each.all_coupons for each in speaking)
        totals = _Totals(figures, transaction_seconds, 1000 * call_seconds)
        rows = [_coupon(name, heard, stock.get(name), recent, totals, now) for name in names]
        return Picture(
            coupons=self._strange_for_long_enough(rows),
            instances=[_instance(each) for each in heard],
            masters=_masters(heard),
            events=[describe(event, summary) for event, summary in events],
            outcomes={name: round(rate, 1) for name, rate in outcomes.items() if rate},
            p50_ms=quantile_ms(latency, 0.5),
            p99_ms=quantile_ms(latency, 0.99),
            waiting=round(sum(each.process.get("waiting", 0.0) for each in speaking)),
            gave_up=sum(event.count for event in recent if event.kind == "gave-up"),
            times=_times(figures, transaction_seconds, call_seconds),
            transaction_ms=1000 * transaction_seconds / transactions if transactions else 0.0,
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


def _seconds(summary: Summary) -> float:
    return max(summary.seconds, _SMALLEST_WINDOW_SECONDS)


def _rate(summaries: Sequence[Summary], figure: str) -> float:
    return sum(each.all_coupons.get(figure, 0.0) / _seconds(each) for each in summaries)


@dataclass(frozen=True, slots=True)
class _Totals:
    """The figures of all coupons together, with which a coupon's figures are compared."""

    figures: Numbers
    transaction_seconds: float
    call_ms: float

    @property
    def claims(self) -> float:
        return sum(self.figures.get(outcome, 0.0) for outcome in OUTCOMES)


@dataclass(slots=True)
class _CouponFigures:
    """One coupon's figures in all instances: their sums and rates, each instance's share of its lock, its holder."""

    sums: Numbers
    rates: Numbers
    turns: list[tuple[int, float]]
    holder: int | None = None
    held_seconds: float = 0.0


def _gather(name: str, heard: Sequence[Heard]) -> _CouponFigures:
    found = _CouponFigures({}, {}, [])
    for number, each in enumerate(heard):
        summary = each.summary
        if name in summary.held and summary.held[name] >= found.held_seconds:
            # A silent instance may still hold it, so it is shown until the instance is forgotten.
            found.holder = number
            found.held_seconds = summary.held[name] + (each.age_seconds if each.is_silent else 0.0)
        if each.is_silent:
            continue
        numbers = summary.coupons.get(name, {})
        for figure, value in numbers.items():
            found.rates[figure] = found.rates.get(figure, 0.0) + value / _seconds(summary)
            found.sums[figure] = found.sums.get(figure, 0.0) + value
        # An uncontended lock may be held for seconds, and a hold is counted only when it ends.
        if held_for := max(numbers.get("hold_seconds", 0.0), summary.held.get(name, 0.0)):
            found.turns.append((number, round(min(held_for / _seconds(summary), 1.0), 3)))
    return found


def _coupon(
    name: str, heard: Sequence[Heard], stock: Coupon | None, recent: Sequence[Event], totals: _Totals, now: float
) -> CouponRow:
    found = _gather(name, heard)
    sums, rates = found.sums, found.rates
    waited, held = sums.get("wait_seconds", 0.0), sums.get("hold_seconds", 0.0)
    acquired, busy = rates.get("attempts-acquired", 0.0), rates.get("attempts-busy", 0.0)
    rate = sum(rates.get(outcome, 0.0) for outcome in OUTCOMES)
    waiting_share = round(_ratio(waited, waited + held), 3)
    held_share = round(min(1.0, sum(share for _, share in found.turns)), 3)
    refused = rates.get("sold-out", 0.0) + rates.get("already-claimed", 0.0)
    gave_up = [event for event in recent if event.kind == "gave-up" and event.subject == name]
    lock = lock_state(
        LockFigures(
            is_locked=stock is None or stock.strategy is StrategyName.REDLOCK,
            is_sold_out=stock.remaining_amount == 0 if stock else bool(rate) and refused > rate / 2,
            takers=len(found.turns),
            rate=rate,
            acquired=acquired,
            busy=busy,
            waiting_share=waiting_share,
            held_share=held_share,
            held_seconds=None if found.holder is None else found.held_seconds,
            call_ms=totals.call_ms,
        )
    )
    claims = sum(sums.get(outcome, 0.0) for outcome in OUTCOMES)
    return CouponRow(
        name=name,
        amount=stock.amount if stock else None,
        remaining=stock.remaining_amount if stock else None,
        strategy=str(stock.strategy) if stock else "",
        outcomes={outcome: round(rates[outcome], 1) for outcome in OUTCOMES if outcome in rates},
        acquired=round(acquired, 1),
        busy=round(busy, 1),
        retries=round(rates.get("retries", 0.0), 1),
        lost=round(sums.get("lost", 0.0)),
        wait_ms=round(1000 * _ratio(waited, sums.get("waits", 0.0)), 2),
        hold_ms=round(1000 * _ratio(held, sums.get("holds", 0.0)), 2),
        waiting_share=waiting_share,
        busy_share=round(_ratio(busy, acquired + busy), 3),
        held_share=held_share,
        turn=turn_of(
            sums,
            totals.figures,
            claims_share=_ratio(claims, totals.claims),
            transaction_seconds=totals.transaction_seconds,
            call_ms=totals.call_ms,
        ),
        lock=lock,
        gave_up=sum(event.count for event in gave_up),
        gave_up_age_seconds=max(0, int(now - max(event.at for event in gave_up))) if gave_up else None,
        turns=found.turns,
        holder=found.holder,
        held_seconds=round(found.held_seconds, 1),
    )


def _ratio(part: float, total: float) -> float:
    return part / total if total else 0.0


def _instance(heard: Heard) -> InstanceRow:
    summary, process = heard.summary, heard.summary.process
    down = [name for name, (is_up, *_) in summary.masters.items() if not is_up]
    return InstanceRow(
        id=summary.id,
        name=summary.name,
        is_here=heard.is_here,
        started_at=round(summary.started_at + heard.clock_offset_seconds, 1),
        restarts=heard.restarts,
        silent_seconds=round(heard.age_seconds, 1) if heard.is_silent else 0.0,
        masters_down=down,
        has_quorum=len(down) <= len(summary.masters) // 2,
        rate=0.0 if heard.is_silent else round(sum(_rate([summary], outcome) for outcome in OUTCOMES), 1),
        waiting=round(process.get("waiting", 0.0)),
        lock_waiters=round(process.get("lock_waiters", 0.0)),
        pool_in_use=round(process.get("pool_in_use", 0.0)),
        pool_size=summary.pool_size,
        transaction_ms=round(
            1000 * _ratio(process.get("transaction_seconds", 0.0), process.get("transactions", 0.0)), 2
        ),
    )


def _masters(heard: Sequence[Heard]) -> list[MasterRow]:
    """Merge the instances' views of the masters. Silent instances are ignored, because their view may be outdated."""
    views: dict[str, list[tuple[int, bool, int, float]]] = {}
    for number, each in enumerate(heard):
        if not each.is_silent:
            for name, (is_up, calls, seconds) in each.summary.masters.items():
                views.setdefault(name, []).append((number, is_up, calls, seconds))
    return [
        MasterRow(
            name,
            up_at=[number for number, is_up, _, _ in each if is_up],
            down_at=[number for number, is_up, _, _ in each if not is_up],
            call_ms=round(
                1000
                * _ratio(
                    sum(seconds for _, is_up, _, seconds in each if is_up),
                    sum(calls for _, is_up, calls, _ in each if is_up),
                ),
                2,
            ),
        )
        for name, each in views.items()
    ]


def _call_seconds(summaries: Sequence[Summary]) -> float:
    """Return the mean duration of a call of the masters that are up. Those that are down get only probes."""
    calls = [(calls, seconds) for each in summaries for is_up, calls, seconds in each.masters.values() if is_up]
    return _ratio(sum(seconds for _, seconds in calls), sum(number for number, _ in calls))


def _times(figures: Numbers, transaction_seconds: float, call_seconds: float) -> Times:
    """Estimate the shares. An uncontended lock takes one call of Redis to take, and releasing it takes as long."""
    waited = figures.get("wait_seconds", 0.0)
    redis = min(waited, figures.get("waits", 0.0) * call_seconds)
    lock = waited - redis
    total = lock + 2 * redis + transaction_seconds
    if not total:
        return Times(0.0, 0.0, 0.0)
    return Times(round(lock / total, 3), round(2 * redis / total, 3), round(transaction_seconds / total, 3))
