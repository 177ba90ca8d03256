"""The wrapper that measures a strategy from outside."""

import asyncio
import time
from functools import partial

from claimsvc.domain import ClaimOptions
from claimsvc.observability.metrics.registry import Metrics
from claimsvc.ports import PendingOutcome, Strategy


class MeteredStrategy:
    """`ports.Strategy` that measures another, which never hears of it."""

    def __init__(self, strategy: Strategy, metrics: Metrics) -> None:
        self.name = strategy.name
        self._strategy = strategy
        self._metrics = metrics

    def claim(self, coupon_name: str, user_id: str, options: ClaimOptions | None = None) -> PendingOutcome:
        started = time.perf_counter()
        answer = self._strategy.claim(coupon_name, user_id, options)
        answer.add_done_callback(partial(self._ended, coupon_name, started))
        return answer

    def _ended(self, coupon_name: str, started: float, answer: PendingOutcome) -> None:
        seconds = time.perf_counter() - started
        result = asyncio.CancelledError() if answer.cancelled() else answer.exception() or answer.result()
        self._metrics.claim_ended(coupon_name, self.name, result, seconds)

    async def drain(self) -> None:
        await self._strategy.drain()
