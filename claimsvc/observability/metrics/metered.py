"""Wrappers that measure claims: those that strategies decide, and those that join a queue."""

import asyncio
import time
from functools import partial

from claimsvc.domain import ClaimOptions, ClaimOutcome
from claimsvc.observability.metrics.registry import Metrics
from claimsvc.ports import Joins, PendingOutcome, Strategy

QUEUE = "queue"
"""The label `strategy` of claims that are answered with a ticket, or that get none."""


class MeteredStrategy:
    """A `ports.Strategy` that measures the claims of another one.

    Args:
        strategy: makes the claims.
        metrics: gets the outcome and duration of each.
    """

    def __init__(self, strategy: Strategy, metrics: Metrics) -> None:
        self.name = strategy.name
        self._strategy = strategy
        self._metrics = metrics

    def claim(self, coupon_name: str, user_id: str, options: ClaimOptions | None = None) -> PendingOutcome:
        started = time.perf_counter()
        outcome = self._strategy.claim(coupon_name, user_id, options)
        outcome.add_done_callback(partial(self._ended, coupon_name, started))
        return outcome

    def _ended(self, coupon_name: str, started: float, outcome: PendingOutcome) -> None:
        self._metrics.claim_ended(coupon_name, self.name, _result(outcome), time.perf_counter() - started)

    async def drain(self) -> None:
        await self._strategy.drain()


class MeteredJoins:
    """A `ports.Joins` that measures another one; see `MeteredStrategy`."""

    def __init__(self, joins: Joins, metrics: Metrics) -> None:
        self._joins = joins
        self._metrics = metrics

    def join(self, coupon_name: str, user_id: str, options: ClaimOptions | None = None) -> PendingOutcome:
        started = time.perf_counter()
        outcome = self._joins.join(coupon_name, user_id, options)
        outcome.add_done_callback(partial(self._ended, coupon_name, started))
        return outcome

    def _ended(self, coupon_name: str, started: float, outcome: PendingOutcome) -> None:
        self._metrics.claim_ended(coupon_name, QUEUE, _result(outcome), time.perf_counter() - started)


def _result(outcome: PendingOutcome) -> ClaimOutcome | BaseException:
    return asyncio.CancelledError() if outcome.cancelled() else outcome.exception() or outcome.result()
