"""Summaries in, one picture out: plain functions, whose only memory is which coupons were busy lately."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from claimsvc.domain import Coupon
from claimsvc.live.events import Event
from claimsvc.live.picture import (
    MOST_COUPONS,
    OTHER,
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
from claimsvc.live.summary import Summary
from claimsvc.metrics import Numbers

# A coupon stays on the page for so long after its last claim, so that rows do not come and go under the reader's eyes.
_LINGERS_SECONDS = 60.0
_REORDERED_SECONDS = 1.0
_SMALLEST_WINDOW_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Heard:
    """An instance's last summary, and how old it is (seconds)."""

    summary: Summary
    age_seconds: float
    is_here: bool = False
    is_silent: bool = False


class Painter:
    """Makes the pictures."""

    def __init__(self) -> None:
        self._busy_at: dict[str, float] = {}
        self._order: tuple[float, list[str]] = (0.0, [])

    def coupons_shown(self, heard: Sequence[Heard]) -> list[str]:
        """Which coupons get a row: those that are busy, then those that were, then those that are known.

        Rows that change places cannot be read, so they do at most once a second.
        """
        now = time.monotonic()
        activity: dict[str, float] = {}
        for each in heard:
            if not each.is_silent:
                for name, numbers in each.summary.coupons.items():
                    activity[name] = activity.get(name, 0.0) + sum(numbers.get(outcome, 0.0) for outcome in OUTCOMES)
        self._busy_at.update(dict.fromkeys((name for name, claims in activity.items() if claims), now))
        self._busy_at = {name: at for name, at in self._busy_at.items() if now - at < _LINGERS_SECONDS}
        ordered_at, order = self._order
        if now - ordered_at >= _REORDERED_SECONDS or not self._busy_at.keys() <= set(order):
            recent = sorted(self._busy_at, key=lambda name: (-self._busy_at[name], -activity.get(name, 0.0)))
            known = [name for each in heard for name in each.summary.known]
            order = list(dict.fromkeys((*recent, *(name for name in known if name != OTHER))))
            self._order = now, order
        return order[:MOST_COUPONS]

    def paint(
        self, heard: Sequence[Heard], names: Sequence[str], stock: Mapping[str, Coupon], *, hears_others: bool
    ) -> Picture:
        """The picture of what was heard.

        Args:
            heard: this instance first.
            names: from `coupons_shown`.
            stock: as far as it is known.
            hears_others: whether other instances would be heard if there were any.
        """
        now = time.time()
        speaking = [each.summary for each in heard if not each.is_silent]
        events = merge_events(each.summary for each in heard)
        recent = [event for event, _ in events if now - event.at < RECENT_SECONDS]
        outcomes = {outcome: _rate(speaking, outcome) for outcome in OUTCOMES}
        latency = [sum(counts) for counts in zip(*(each.latency for each in speaking), strict=True)]
        transactions = sum(each.process.get("transactions", 0.0) for each in speaking)
        transaction_seconds = sum(each.process.get("transaction_seconds", 0.0) for each in speaking)
        return Picture(
            coupons=[_coupon(name, heard, stock.get(name), recent) for name in names],
            instances=[_instance(each) for each in heard],
            masters=_masters(speaking),
            events=[describe(event, summary) for event, summary in events],
            outcomes={name: round(rate, 1) for name, rate in outcomes.items() if rate},
            p50_ms=quantile_ms(latency, 0.5),
            p99_ms=quantile_ms(latency, 0.99),
            waiting=round(sum(each.process.get("waiting", 0.0) for each in speaking)),
            gave_up=sum(event.count for event in recent if event.kind == "gave-up"),
            times=_times(speaking, transaction_seconds),
            transaction_ms=1000 * transaction_seconds / transactions if transactions else 0.0,
            hears_others=hears_others,
        )


def _seconds(summary: Summary) -> float:
    return max(summary.seconds, _SMALLEST_WINDOW_SECONDS)


def _rate(summaries: Sequence[Summary], figure: str) -> float:
    return sum(each.all_coupons.get(figure, 0.0) / _seconds(each) for each in summaries)


def _coupon(name: str, heard: Sequence[Heard], stock: Coupon | None, recent: Sequence[Event]) -> CouponRow:
    rates: Numbers = {}
    sums: Numbers = {}
    turns: list[tuple[int, float]] = []
    holder, held_seconds = None, 0.0
    for number, each in enumerate(heard):
        if name in each.summary.held and each.summary.held[name] >= held_seconds:
            # One that is silent may hold it still: it is shown for as long as we remember it.
            holder = number
            held_seconds = each.summary.held[name] + (each.age_seconds if each.is_silent else 0.0)
        numbers = {} if each.is_silent else each.summary.coupons.get(name, {})
        for figure, value in numbers.items():
            rates[figure] = rates.get(figure, 0.0) + value / _seconds(each.summary)
            sums[figure] = sums.get(figure, 0.0) + value
        held_for = numbers.get("hold_seconds", 0.0)
        if not each.is_silent:
            # One that nobody else wants is kept for seconds, and not counted before it is given back.
            held_for = max(held_for, each.summary.held.get(name, 0.0))
        if held_for:
            turns.append((number, round(min(held_for / _seconds(each.summary), 1.0), 3)))

    def ratio(part: float, whole: float) -> float:
        return part / whole if whole else 0.0

    waited, held = sums.get("wait_seconds", 0.0), sums.get("hold_seconds", 0.0)
    acquired, busy = rates.get("attempts-acquired", 0.0), rates.get("attempts-busy", 0.0)
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
        wait_ms=round(1000 * ratio(waited, sums.get("waits", 0.0)), 2),
        hold_ms=round(1000 * ratio(held, sums.get("holds", 0.0)), 2),
        waiting_share=round(ratio(waited, waited + held), 3),
        busy_share=round(ratio(busy, acquired + busy), 3),
        gave_up=sum(event.count for event in recent if event.kind == "gave-up" and event.subject == name),
        turns=turns,
        holder=holder,
        held_seconds=round(held_seconds, 1),
    )


def _instance(heard: Heard) -> InstanceRow:
    summary, process = heard.summary, heard.summary.process
    transactions = process.get("transactions", 0.0)
    return InstanceRow(
        id=summary.id,
        name=summary.name,
        is_here=heard.is_here,
        silent_seconds=round(heard.age_seconds, 1) if heard.is_silent else 0.0,
        rate=0.0 if heard.is_silent else round(sum(_rate([summary], outcome) for outcome in OUTCOMES), 1),
        waiting=round(process.get("waiting", 0.0)),
        lock_waiters=round(process.get("lock_waiters", 0.0)),
        pool_in_use=round(process.get("pool_in_use", 0.0)),
        pool_size=summary.pool_size,
        transaction_ms=round(1000 * process.get("transaction_seconds", 0.0) / transactions, 2) if transactions else 0.0,
    )


def _masters(summaries: Sequence[Summary]) -> list[MasterRow]:
    rows: list[MasterRow] = []
    for name in dict.fromkeys(name for each in summaries for name in each.masters):
        told = [each.masters[name] for each in summaries if name in each.masters]
        calls = sum(calls for _, calls, _ in told)
        seconds = sum(seconds for _, _, seconds in told)
        up_for = sum(up for up, _, _ in told)
        rows.append(MasterRow(name, up_for, len(told) - up_for, round(1000 * seconds / calls, 2) if calls else 0.0))
    return rows


def _times(summaries: Sequence[Summary], transaction_seconds: float) -> Times:
    """Roughly: a lock that nobody else wants is waited for as long as Redis needs, and giving it back takes as long."""
    calls = sum(calls for each in summaries for _, calls, _ in each.masters.values())
    seconds = sum(seconds for each in summaries for _, _, seconds in each.masters.values())
    call_seconds = seconds / calls if calls else 0.0
    waits = sum(each.all_coupons.get("waits", 0.0) for each in summaries)
    waited = sum(each.all_coupons.get("wait_seconds", 0.0) for each in summaries)
    redis = min(waited, waits * call_seconds)
    lock = waited - redis
    total = lock + 2 * redis + transaction_seconds
    if not total:
        return Times(0.0, 0.0, 0.0)
    return Times(round(lock / total, 3), round(2 * redis / total, 3), round(transaction_seconds / total, 3))
