"""Builds the rows of coupons from the summaries of all instances."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from claimsvc.domain import Coupon, StrategyName
from claimsvc.observability.console.events import Event
from claimsvc.observability.console.locks import LockFigures, lock_state, turn_of
from claimsvc.observability.console.membership import Heard
from claimsvc.observability.console.picture import OUTCOMES, CouponRow, Turn
from claimsvc.observability.console.summary import Recent, Summary
from claimsvc.observability.metrics import Numbers

_SMALLEST_WINDOW_SECONDS = 0.05


def window_seconds(of: Summary | Recent) -> float:
    """Return the length of a window; never 0."""
    return max(of.seconds, _SMALLEST_WINDOW_SECONDS)


def ratio(part: float, total: float) -> float:
    """Return a share; 0 of nothing."""
    return part / total if total else 0.0


@dataclass(frozen=True, slots=True)
class AllCoupons:
    """The figures of all coupons together, with which a coupon's figures are compared."""

    figures: Numbers
    transaction_seconds: float
    call_ms: float

    @property
    def claims(self) -> float:
        return sum(self.figures.get(outcome, 0.0) for outcome in OUTCOMES)


@dataclass(slots=True)
class _CouponFigures:
    """One coupon's figures in all instances.

    Args:
        rates: of the last second.
        sums, span_rates: of the span.
        turns: each instance's share of the lock in the span.
        takers: how many instances held it in the last second.
    """

    rates: Numbers
    sums: Numbers
    span_rates: Numbers
    turns: list[tuple[int, float]]
    holder: int | None = None
    held_seconds: float = 0.0
    held_share: float = 0.0


def _gather(name: str, heard: Sequence[Heard], *, is_instant: bool) -> _CouponFigures:
    found = _CouponFigures({}, {}, {}, [])
    for number, each in enumerate(heard):
        summary = each.summary
        if name in summary.held and summary.held[name] >= found.held_seconds:
            # A silent instance may still hold it, so it is shown until the instance is forgotten.
            found.holder = number
            found.held_seconds = summary.held[name] + (each.age_seconds if each.is_silent else 0.0)
        if each.is_silent:
            continue
        now = summary.coupons.get(name, {})
        for figure, value in now.items():
            found.rates[figure] = found.rates.get(figure, 0.0) + value / window_seconds(summary)
        found.held_share += _held_share(now, summary, name)
        span = summary.span(is_instant=is_instant)
        numbers = span.coupons.get(name, {})
        for figure, value in numbers.items():
            found.span_rates[figure] = found.span_rates.get(figure, 0.0) + value / window_seconds(span)
            found.sums[figure] = found.sums.get(figure, 0.0) + value
        if share := _held_share(numbers, span, name, summary.held):
            found.turns.append((number, round(share, 3)))
    return found


def _held_share(
    numbers: Numbers, window: Summary | Recent, name: str, held: Mapping[str, float] | None = None
) -> float:
    # An uncontended lock may be held for seconds, and a hold is counted only when it ends.
    held_now = (window.held if isinstance(window, Summary) else held or {}).get(name, 0.0)
    return min(max(numbers.get("hold_seconds", 0.0), held_now) / window_seconds(window), 1.0)


def coupon_row(
    name: str,
    heard: Sequence[Heard],
    stock: Coupon | None,
    recent: Sequence[Event],
    totals: AllCoupons,
    *,
    is_instant: bool,
) -> CouponRow:
    """Build the row of a coupon.

    Args:
        name: the coupon's.
        heard: the summaries of all instances.
        stock: the coupon, if it was read.
        recent: the recent events.
        totals: of all coupons, of the same span.
        is_instant: whether all is of the last second.
    """
    found = _gather(name, heard, is_instant=is_instant)
    sums, rates, span_rates = found.sums, found.rates, found.span_rates
    waited, held = sums.get("wait_seconds", 0.0), sums.get("hold_seconds", 0.0)
    acquired, busy = span_rates.get("attempts-acquired", 0.0), span_rates.get("attempts-busy", 0.0)
    gave_up = [event for event in recent if event.kind == "gave-up" and event.subject == name]
    waiting_share = round(ratio(waited, waited + held), 3)
    claims = sum(sums.get(outcome, 0.0) for outcome in OUTCOMES)
    return CouponRow(
        name=name,
        amount=stock.amount if stock else None,
        remaining=stock.remaining_amount if stock else None,
        strategy=str(stock.strategy) if stock else "",
        outcomes={outcome: round(rates[outcome], 1) for outcome in OUTCOMES if outcome in rates},
        acquired=round(acquired, 1),
        busy=round(busy, 1),
        retries=round(span_rates.get("retries", 0.0), 1),
        lost=round(sums.get("lost", 0.0)),
        wait_ms=round(1000 * ratio(waited, sums.get("waits", 0.0)), 2),
        hold_ms=round(1000 * ratio(held, sums.get("holds", 0.0)), 2),
        waiting_share=waiting_share,
        busy_share=round(ratio(busy, acquired + busy), 3),
        held_share=round(min(1.0, sum(share for _, share in found.turns)), 3),
        turn=_turn(sums, totals, ratio(claims, totals.claims)),
        lock=_lock_state(found, stock, waiting_share, totals.call_ms),
        gave_up=sum(event.count for event in gave_up),
        gave_up_age_seconds=max(0, int(time.time() - max(event.at for event in gave_up))) if gave_up else None,
        turns=found.turns,
        holder=found.holder,
        held_seconds=round(found.held_seconds, 1),
    )


def _turn(sums: Numbers, totals: AllCoupons, claims_share: float) -> Turn | None:
    return turn_of(
        sums,
        totals.figures,
        claims_share=claims_share,
        transaction_seconds=totals.transaction_seconds,
        call_ms=totals.call_ms,
    )


def _lock_state(found: _CouponFigures, stock: Coupon | None, waiting_share: float, call_ms: float) -> str:
    """Classify the lock: by the last second who has it, and by the span whether it is contended."""
    rates = found.rates
    rate = sum(rates.get(outcome, 0.0) for outcome in OUTCOMES)
    refused = rates.get("sold-out", 0.0) + rates.get("already-claimed", 0.0)
    return lock_state(
        LockFigures(
            is_locked=stock is None or stock.strategy is StrategyName.REDLOCK,
            is_sold_out=stock.remaining_amount == 0 if stock else bool(rate) and refused > rate / 2,
            takers=len(found.turns),
            rate=rate,
            acquired=rates.get("attempts-acquired", 0.0),
            busy=rates.get("attempts-busy", 0.0),
            waiting_share=waiting_share,
            held_share=min(1.0, found.held_share),
            held_seconds=None if found.holder is None else found.held_seconds,
            call_ms=call_ms,
        )
    )
