"""A wrapper that measures a strategy."""

import asyncio
import time
from functools import partial

from claimsvc.domain import ClaimOptions
from claimsvc.observability.metrics.registry import Metrics
from claimsvc.ports import PendingOutcome, Strategy


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
        seconds = time.perf_counter() - started
        result = asyncio.CancelledError() if outcome.cancelled() else outcome.exception() or outcome.result()
        self._metrics.claim_ended(coupon_name, self.name, result, seconds)

    async def drain(self) -> None:
        await self._strategy.drain()
