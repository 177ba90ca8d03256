"""Summaries in, one picture out: plain functions, whose only memory is which coupons were busy lately."""

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

# Claims that get no answer, because their lock is not to be had, are activity too.
_ACTIVE = (*OUTCOMES, "attempts-busy")
# A coupon stays on the page for so long after its last claim, so that rows do not come and go under the reader's eyes.
_LINGERS_SECONDS = 60.0
_REORDERED_SECONDS = 1.0
_SMALLEST_WINDOW_SECONDS = 0.05
# Instances tell their windows at different moments, so for some of them a lock may seem to be nobody's.
_STRANGE_AFTER_SECONDS = 1.0


class Painter:
    """Makes the pictures.

    Args:
        strange_after_seconds: for how long a lock must seem to be nobody's before it is called so.
    """

    def __init__(self, strange_after_seconds: float = _STRANGE_AFTER_SECONDS) -> None:
        self._strange_after_seconds = strange_after_seconds
        self._strange_since: dict[str, float] = {}
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

    def paint(
        self,
        heard: Sequence[Heard],
        names: Sequence[str],
        stock: Mapping[str, Coupon],
        *,
        hears_others: bool,
        stock_age_seconds: int = 0,
    ) -> Picture:
        """The picture of what was heard.

        Args:
            heard: this instance first.
            names: from `coupons_shown`.
            stock: as far as it is known.
            hears_others: whether other instances would be heard if there were any.
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
        whole = _Whole(figures, transaction_seconds, 1000 * call_seconds)
        rows = [_coupon(name, heard, stock.get(name), recent, whole, now) for name in names]
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
class _Whole:
    """What a coupon's figures are compared with: those of all coupons together."""

    figures: Numbers
    transaction_seconds: float
    call_ms: float

    @property
    def claims(self) -> float:
        return sum(self.figures.get(outcome, 0.0) for outcome in OUTCOMES)


@dataclass(slots=True)
class _OfAll:
    """One coupon's figures in all instances: what they add up to, each a second too; who held its lock and holds it."""

    sums: Numbers
    rates: Numbers
    turns: list[tuple[int, float]]
    holder: int | None = None
    held_seconds: float = 0.0


def _gather(name: str, heard: Sequence[Heard]) -> _OfAll:
    found = _OfAll({}, {}, [])
    for number, each in enumerate(heard):
        summary = each.summary
        if name in summary.held and summary.held[name] >= found.held_seconds:
            # One that is silent may hold it still: it is shown for as long as we remember it.
            found.holder = number
            found.held_seconds = summary.held[name] + (each.age_seconds if each.is_silent else 0.0)
        if each.is_silent:
            continue
        numbers = summary.coupons.get(name, {})
        for figure, value in numbers.items():
            found.rates[figure] = found.rates.get(figure, 0.0) + value / _seconds(summary)
            found.sums[figure] = found.sums.get(figure, 0.0) + value
        # One that nobody else wants is kept for seconds, and not counted before it is given back.
        if held_for := max(numbers.get("hold_seconds", 0.0), summary.held.get(name, 0.0)):
            found.turns.append((number, round(min(held_for / _seconds(summary), 1.0), 3)))
    return found


def _coupon(
    name: str, heard: Sequence[Heard], stock: Coupon | None, recent: Sequence[Event], whole: _Whole, now: float
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
            call_ms=whole.call_ms,
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
            whole.figures,
            claims_share=_ratio(claims, whole.claims),
            transaction_seconds=whole.transaction_seconds,
            call_ms=whole.call_ms,
        ),
        lock=lock,
        gave_up=sum(event.count for event in gave_up),
        gave_up_age_seconds=max(0, int(now - max(event.at for event in gave_up))) if gave_up else None,
        turns=found.turns,
        holder=found.holder,
        held_seconds=round(found.held_seconds, 1),
    )


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


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
    """Of what silent instances said last, nothing: it may have changed since."""
    told: dict[str, list[tuple[int, bool, int, float]]] = {}
    for number, each in enumerate(heard):
        if not each.is_silent:
            for name, (is_up, calls, seconds) in each.summary.masters.items():
                told.setdefault(name, []).append((number, is_up, calls, seconds))
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
        for name, each in told.items()
    ]


def _call_seconds(summaries: Sequence[Summary]) -> float:
    """What a call takes of a master that is up. The others are only asked whether they are back, in vain."""
    calls = [(calls, seconds) for each in summaries for is_up, calls, seconds in each.masters.values() if is_up]
    return _ratio(sum(seconds for _, seconds in calls), sum(number for number, _ in calls))


def _times(figures: Numbers, transaction_seconds: float, call_seconds: float) -> Times:
    """Roughly: a lock that nobody else wants is waited for as long as Redis needs, and giving it back takes as long."""
    waited = figures.get("wait_seconds", 0.0)
    redis = min(waited, figures.get("waits", 0.0) * call_seconds)
    lock = waited - redis
    total = lock + 2 * redis + transaction_seconds
    if not total:
        return Times(0.0, 0.0, 0.0)
    return Times(round(lock / total, 3), round(2 * redis / total, 3), round(transaction_seconds / total, 3))
