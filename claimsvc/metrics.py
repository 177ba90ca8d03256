"""Every metric that this service exports, by name; and the wrapper that measures a strategy from outside."""

import asyncio
import math
import os
import platform
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.gc_collector import GCCollector
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.process_collector import ProcessCollector

from claimsvc.domain import AlreadyClaimed, Claimed, Coupon, Outcome, SoldOut, UnknownCoupon
from claimsvc.errors import LockBusyError, UnavailableError
from claimsvc.ports import Strategy

# Seconds. From a lock on loopback to the 1.5 s after which a claim gives up, and beyond it to what is broken.
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 5.0, 10.0, 20.0)
_SIZE_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

_OUTCOMES: dict[type, str] = {
    Claimed: "claimed",
    AlreadyClaimed: "already-claimed",
    SoldOut: "sold-out",
    UnknownCoupon: "unknown-coupon",
    LockBusyError: "lock-busy",
    UnavailableError: "unavailable",
    asyncio.CancelledError: "cancelled",
}
_DEFECT = "internal-error"

_REPLACEMENTS_WHERE_NOTHING_CAN_BE_REMOVED = 900

OTHER = "other"


class BusiestCoupons:
    """Which coupons have a label of their own: the busiest few. The rest are `other`, so that series stay few.

    Args:
        capacity: coupons that have a label at a time.
        replacements: how many labels may be handed on, in all, to a coupon that has become busier. Several workers
            share their metrics through files from which a series cannot be removed, so there it is bounded.
        on_retired: told each coupon that has lost its label.
    """

    def __init__(
        self,
        capacity: int = 100,
        replacements: float = math.inf,
        on_retired: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._on_retired = on_retired
        self._capacity = capacity
        self._replacements = replacements
        self._labelled: dict[str, int] = {}
        self._candidates: dict[str, int] = {}
        self._counted = 0

    def __contains__(self, coupon_name: str) -> bool:
        return coupon_name in self._labelled

    def names(self) -> list[str]:
        return list(self._labelled)

    def label(self, coupon_name: str) -> str:
        return coupon_name if coupon_name in self._labelled else OTHER

    def count(self, coupon_name: str) -> str:
        """Count one claim of a coupon that exists, and return the coupon's label."""
        if coupon_name == OTHER:  # it would share a series with all that have no label
            return OTHER
        self._counted += 1
        if self._counted >= 100 * self._capacity:
            self._age()
        if coupon_name in self._labelled:
            self._labelled[coupon_name] += 1
        elif len(self._labelled) < self._capacity:
            self._labelled[coupon_name] = 1
        else:
            self._count_candidate(coupon_name)
        return self.label(coupon_name)

    def _count_candidate(self, coupon_name: str) -> None:
        if len(self._candidates) >= 10 * self._capacity and coupon_name not in self._candidates:
            return  # forgotten with the next ageing
        count = self._candidates[coupon_name] = self._candidates.get(coupon_name, 0) + 1
        if self._replacements and count % 64 == 0:
            least = min(self._labelled, key=self._labelled.__getitem__)
            if count > 2 * self._labelled[least]:
                self._replacements -= 1
                self._candidates[least] = self._labelled.pop(least)
                self._labelled[coupon_name] = self._candidates.pop(coupon_name)
                self._on_retired(least)

    def _age(self) -> None:
        """Halve what was counted, so that yesterday's sale makes room for today's."""
        self._counted = 0
        self._labelled = {name: count // 2 for name, count in self._labelled.items()}
        self._candidates = {name: count // 2 for name, count in self._candidates.items() if count > 1}


class _Children(dict[tuple[Any, ...], Any]):
    """The children of a metric by the values of their labels."""

    def __init__(self, metric: Counter | Histogram) -> None:
        super().__init__()
        self._metric = metric

    def __missing__(self, labels: tuple[Any, ...]) -> Any:
        child = self[labels] = self._metric.labels(*labels)
        return child


class Metrics:
    """The metrics of one process. Its methods are the observers that `ports` and the API ask for.

    With several workers, PROMETHEUS_MULTIPROC_DIR is set before this process starts: each then keeps its figures in
    files there, and any of them answers for all.
    """

    def __init__(self) -> None:
        self._shared = "PROMETHEUS_MULTIPROC_DIR" in os.environ
        self._registry = CollectorRegistry()
        self.coupons = (
            BusiestCoupons(replacements=_REPLACEMENTS_WHERE_NOTHING_CAN_BE_REMOVED)
            if self._shared
            else BusiestCoupons(on_retired=self._retire)
        )
        registry = self._registry

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, namespace="claimsvc", registry=registry)

        def histogram(name: str, text: str, *labels: str, buckets: tuple[float, ...] = _BUCKETS) -> Histogram:
            return Histogram(name, text, labels, namespace="claimsvc", registry=registry, buckets=buckets)

        def total(name: str, text: str, *labels: str) -> Gauge:  # of all workers
            return Gauge(name, text, labels, namespace="claimsvc", registry=registry, multiprocess_mode="livesum")

        def shared(name: str, text: str, *labels: str) -> Gauge:  # the same whichever worker is asked
            return Gauge(name, text, labels, namespace="claimsvc", registry=registry, multiprocess_mode="mostrecent")

        self._claims = counter("claims_total", "Claims answered.", "coupon", "strategy", "outcome")
        self._claim_duration = histogram(
            "claim_duration_seconds", "From a valid request to its outcome.", "strategy", "outcome"
        )
        self._attempts = counter("lock_attempts_total", "Attempts to take a coupon's lock.", "coupon", "result")
        self._wait = histogram("lock_wait_seconds", "From wanting a lock to having it or giving up.", "result")
        self._hold = histogram("lock_hold_seconds", "How long a lock was held.")
        self._retries = counter("lock_retries_total", "Attempts after the first.")
        self._waiters = total("lock_waiters", "Leaders that are waiting for a lock now.")
        self._lost = counter("lock_lost_total", "Locks that were no longer ours when they were given back.")
        self._hints = counter("lock_hints_total", "Hints that a lock is free, between instances.", "result")
        self._batch_size = histogram("batch_size", "Claims that were admitted together.", buckets=_SIZE_BUCKETS)
        self._waiting = total("claims_waiting", "Claims that have no answer yet.")
        self._remaining = shared("coupon_remaining", "Units of the coupon left.", "coupon")
        self._amount = shared("coupon_amount", "Units of the coupon offered.", "coupon")
        self._requests = counter("http_requests_total", "Requests answered.", "method", "route", "status")
        self._request_duration = histogram(
            "http_request_duration_seconds", "From a request's headers to its answer.", "route"
        )
        self._transaction = histogram("db_transaction_seconds", "One transaction that admits claims.")
        self._pool = total("db_pool_connections", "Connections to PostgreSQL.", "state")
        self._counter_drift = shared(
            "counter_drift", "Counter in Redis less PostgreSQL when last set right, in units.", "coupon"
        )
        self._master_up = shared("redis_master_up", "1 if the master answers, else 0.", "master")
        self._violations = counter(
            "invariant_violations_total",
            "Transactions that were rolled back because a promise would have been broken.",
        )
        build = Gauge(
            "build_info",
            "1; the labels say what runs.",
            ["version", "python"],
            namespace="claimsvc",
            registry=registry,
            multiprocess_mode="max",
        )
        build.labels(version("claimsvc"), platform.python_version()).set(1)
        for state in ("idle", "in_use"):
            self._pool.labels(state)
        # What is counted for every claim and request is found here, not by `labels()`, which converts and locks.
        self._claims_by = _Children(self._claims)
        self._claim_duration_by = _Children(self._claim_duration)
        self._attempts_by = _Children(self._attempts)
        self._requests_by = _Children(self._requests)
        self._request_duration_by = _Children(self._request_duration)
        if not self._shared:
            ProcessCollector(registry=registry)
            GCCollector(registry=registry)

    def render(self) -> tuple[bytes, str]:
        """The exposition of all workers, and its content type."""
        registry = self._registry
        if self._shared:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4

    # ports.LockObserver

    def attempted(self, coupon_name: str, result: str) -> None:
        self._attempts_by[self.coupons.label(coupon_name), result].inc()

    def retried(self) -> None:
        self._retries.inc()

    def waited(self, result: str, seconds: float) -> None:
        self._wait.labels(result).observe(seconds)

    def held(self, seconds: float) -> None:
        self._hold.observe(seconds)

    def lost(self, coupon_name: str) -> None:
        self._lost.inc()

    def hinted(self, result: str) -> None:
        self._hints.labels(result).inc()

    def lock_waiters(self, change: int) -> None:
        self._waiters.inc(change)

    # ports.BatchObserver

    def batched(self, size: int) -> None:
        self._batch_size.observe(size)

    def claims_waiting(self, count: int) -> None:
        self._waiting.set(count)

    # ports.StorageObserver

    def transaction_ended(self, seconds: float) -> None:
        self._transaction.observe(seconds)

    def pool_changed(self, state: str, change: int) -> None:
        self._pool.labels(state).inc(change)

    def invariant_violated(self) -> None:
        self._violations.inc()

    # the API's observer

    def observed(self, method: str, route: str, status: int, seconds: float) -> None:
        self._requests_by[method, route, status].inc()
        self._request_duration_by[route,].observe(seconds)

    # what is sampled, not observed

    def stock_sampled(self, coupon: Coupon) -> None:
        self._remaining.labels(coupon.name).set(coupon.remaining_amount)
        self._amount.labels(coupon.name).set(coupon.amount)

    def counter_drifted(self, coupon_name: str, units: int) -> None:
        if coupon_name in self.coupons:
            self._counter_drift.labels(coupon_name).set(units)

    def master_changed(self, name: str, up: bool) -> None:
        self._master_up.labels(name).set(up)

    # the measured strategy

    def claim_ended(self, coupon_name: str, strategy: str, result: Outcome | BaseException, seconds: float) -> None:
        outcome = _OUTCOMES.get(type(result), _DEFECT)
        # Only coupons that exist compete for a label: made-up names cannot crowd them out.
        exists = isinstance(result, Claimed | AlreadyClaimed | SoldOut)
        label = self.coupons.count(coupon_name) if exists else self.coupons.label(coupon_name)
        self._claims_by[label, strategy, outcome].inc()
        self._claim_duration_by[strategy, outcome].observe(seconds)

    def _retire(self, coupon_name: str) -> None:
        """Drop the series of a coupon that is not among the busiest any more."""
        for metric in (self._claims, self._attempts, self._remaining, self._amount, self._counter_drift):
            metric.remove_by_labels({"coupon": coupon_name})
        for children in (self._claims_by, self._attempts_by):
            for labels in [labels for labels in children if coupon_name in labels]:
                del children[labels]


class MeteredStrategy:
    """`ports.Strategy` that measures another, which never hears of it."""

    def __init__(self, strategy: Strategy, metrics: Metrics) -> None:
        self.name = strategy.name
        self._strategy = strategy
        self._metrics = metrics

    def claim(self, coupon_name: str, user_id: str) -> "asyncio.Future[Outcome]":
        started = time.perf_counter()
        answer = self._strategy.claim(coupon_name, user_id)
        answer.add_done_callback(partial(self._ended, coupon_name, started))
        return answer

    def _ended(self, coupon_name: str, started: float, answer: "asyncio.Future[Outcome]") -> None:
        seconds = time.perf_counter() - started
        result = asyncio.CancelledError() if answer.cancelled() else answer.exception() or answer.result()
        self._metrics.claim_ended(coupon_name, self.name, result, seconds)

    async def drain(self) -> None:
        await self._strategy.drain()
