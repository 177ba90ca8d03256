"""Every metric that this service exports, by name."""

import asyncio
import os
import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.gc_collector import GCCollector
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.process_collector import ProcessCollector

from claimsvc.domain import AlreadyClaimed, Claimed, Coupon, Outcome, SoldOut, UnknownCoupon
from claimsvc.errors import LockBusyError, UnavailableError
from claimsvc.metrics.busiest import OTHER, BusiestCoupons
from claimsvc.metrics.tallies import Flusher, HeldLocks, Tallies, TraceId
from claimsvc.metrics.workers import WorkersCollector

# Seconds. From a lock on loopback to the 1.5 s after which a claim gives up, and beyond it to what is broken. Who waits
# until a limit (0.5 s for a master or a retry, 1.5 s for the lock) tells so a little after it: a bound of just that
# would put all of them into the bucket above, and quantiles would be read as up to twice what anybody can have waited.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.6, 1.0, 1.6, 2.0, 5.0, 10.0, 20.0)
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
_ALL_OUTCOMES = (*_OUTCOMES.values(), _DEFECT)

_REPLACEMENTS_WHERE_NOTHING_CAN_BE_REMOVED = 900


class Metrics:
    """The metrics of one process. Its methods are the observers that `ports` and the API ask for.

    With several workers, PROMETHEUS_MULTIPROC_DIR is set before this process starts: each then keeps its figures in
    files there, and any of them answers for all. Those files have no room for exemplars.

    Args:
        trace_id: the trace of what is being observed, for exemplars; None where nothing is traced.
    """

    def __init__(self, trace_id: TraceId | None = None) -> None:
        self._trace_id = trace_id
        self._shared = "PROMETHEUS_MULTIPROC_DIR" in os.environ
        self._registry = CollectorRegistry()
        self.coupons = (
            BusiestCoupons(replacements=_REPLACEMENTS_WHERE_NOTHING_CAN_BE_REMOVED, on_labelled=self._introduce)
            if self._shared
            else BusiestCoupons(on_labelled=self._introduce, on_retired=self._retire)
        )
        registry = self._registry

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, namespace="claimsvc", registry=registry)

        def histogram(name: str, text: str, *labels: str, buckets: tuple[float, ...] = BUCKETS) -> Histogram:
            return Histogram(name, text, labels, namespace="claimsvc", registry=registry, buckets=buckets)

        def total(name: str, text: str, *labels: str) -> Gauge:  # of all workers
            return Gauge(name, text, labels, namespace="claimsvc", registry=registry, multiprocess_mode="livesum")

        def shared(name: str, text: str, *labels: str) -> Gauge:  # the same whichever worker is asked
            return Gauge(name, text, labels, namespace="claimsvc", registry=registry, multiprocess_mode="mostrecent")

        def least(name: str, text: str, *labels: str) -> Gauge:  # of what the workers say
            return Gauge(name, text, labels, namespace="claimsvc", registry=registry, multiprocess_mode="livemin")

        self._claims = counter("claims_total", "Claims answered.", "coupon", "strategy", "outcome")
        self._claim_duration = histogram(
            "claim_duration_seconds", "From a valid request to its outcome.", "strategy", "outcome"
        )
        self._attempts = counter("lock_attempts_total", "Attempts to take a coupon's lock.", "coupon", "result")
        self._wait = histogram(
            "lock_wait_seconds", "From wanting a lock to having it or giving up.", "coupon", "result"
        )
        self._hold = histogram("lock_hold_seconds", "How long a lock was held.", "coupon")
        self._held = total("lock_held", "Locks that are held now.", "coupon")
        self._retries = counter("lock_retries_total", "Attempts after the first.", "coupon")
        self._waiters = total("lock_waiters", "Leaders that are waiting for a lock now.")
        self._lost = counter("lock_lost_total", "Locks that were no longer ours when they were given back.", "coupon")
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
        self._pool_limit = total("db_pool_limit", "Most connections to PostgreSQL.")
        self._counter_drift = shared(
            "counter_drift", "Counter in Redis less PostgreSQL when last set right, in units.", "coupon"
        )
        self._drifts = counter("drifts_mended_total", "Times that a counter was found wrong and set right.", "coupon")
        self._master_up = least("redis_master_up", "1 if the master answers every worker, else 0.", "master")
        self._master_memory = shared("redis_memory_bytes", "Memory that the master uses.", "master")
        self._master_memory_limit = shared("redis_memory_limit_bytes", "Memory that the master may use.", "master")
        self._call = histogram("redis_call_seconds", "From a call of a master to its answer or failure.", "master")
        self._loop_lag = histogram("event_loop_lag_seconds", "How late a sleeping task of this process was woken.")
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
        for result in ("sent", "used", "late"):
            self._hints.labels(result)
        self._introduce(OTHER)
        self._claims_by = Tallies(self._claims, lambda labels: [(*labels[:2], outcome) for outcome in _ALL_OUTCOMES])
        self._claim_duration_by = Tallies(self._claim_duration, trace_id=trace_id)
        self._attempts_by = Tallies(self._attempts)
        self._wait_by = Tallies(self._wait, trace_id=trace_id)
        self._hold_by = Tallies(self._hold, trace_id=trace_id)
        self._calls_by = Tallies(self._call, trace_id=trace_id)
        self._requests_by = Tallies(self._requests)
        self._request_duration_by = Tallies(self._request_duration, trace_id=trace_id)
        self._held_locks = HeldLocks(self._held, self.coupons)
        self._flusher = Flusher(
            (
                self._claims_by,
                self._claim_duration_by,
                self._attempts_by,
                self._wait_by,
                self._hold_by,
                self._calls_by,
                self._requests_by,
                self._request_duration_by,
                self._held_locks,
            ),
            by_itself=self._shared,
        )
        if not self._shared:
            ProcessCollector(registry=registry)
            GCCollector(registry=registry)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The exposition of all workers, and its content type: OpenMetrics, the only one with exemplars, or text.

        Args:
            accept: what whoever reads it would take, as the header of that name says it.
        """
        self.flush()
        registry = self._registry
        if self._shared:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
            registry.register(WorkersCollector(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])))
        # prometheus_client's own choice fails on a version that is no number.
        if "application/openmetrics-text" in accept:
            return openmetrics.generate_latest(registry), openmetrics.CONTENT_TYPE_LATEST  # type: ignore[no-untyped-call]
        return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4

    def flush(self) -> None:
        """Bring what was counted for every claim and request to where it is read."""
        self._flusher.flush()

    # ports.MasterObserver

    def master_probed(self, master: str, up: bool) -> None:
        self._master_up.labels(master).set(up)

    def master_memory(self, master: str, used_bytes: int, limit_bytes: int) -> None:
        self._master_memory.labels(master).set(used_bytes)
        self._master_memory_limit.labels(master).set(limit_bytes)

    def master_called(self, master: str, seconds: float) -> None:
        self._calls_by[master,].observe(seconds)
        self._flusher.changed()

    # ports.LockObserver

    def attempted(self, coupon_name: str, result: str) -> None:
        self._attempts_by[self.coupons.label(coupon_name), result].inc()
        self._flusher.changed()

    def retried(self, coupon_name: str) -> None:
        self._retries.labels(self.coupons.label(coupon_name)).inc()

    def waited(self, coupon_names: Sequence[str], result: str, seconds: float) -> None:
        for label, times in self.coupons.labels(coupon_names).items():
            self._wait_by[label, result].observe(seconds, times)
        self._flusher.changed()

    def taken(self, coupon_names: Sequence[str]) -> None:
        self._held_locks.add(coupon_names)
        self._flusher.changed()

    def held(self, coupon_names: Sequence[str], seconds: float) -> None:
        self._held_locks.remove(coupon_names)
        for label, times in self.coupons.labels(coupon_names).items():
            self._hold_by[label,].observe(seconds, times)
        self._flusher.changed()

    def lost(self, coupon_name: str) -> None:
        self._lost.labels(self.coupons.label(coupon_name)).inc()

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
        self._transaction.observe(seconds, self._exemplar())

    def pool_changed(self, state: str, change: int) -> None:
        self._pool.labels(state).inc(change)

    def invariant_violated(self) -> None:
        self._violations.inc()

    def pool_limited(self, connections: int) -> None:
        """Told once, of the pool that claims use."""
        self._pool_limit.set(connections)

    # the API's observer

    def expect_requests(self, method: str, route: str, statuses: Iterable[int]) -> None:
        """Begin with 0 what is to be alarming from the first one on; see `Tallies`."""
        for status in statuses:
            self._requests.labels(method, route, status)

    def observed(self, method: str, route: str, status: int, seconds: float) -> None:
        self._requests_by[method, route, status].inc()
        self._request_duration_by[route,].observe(seconds)
        self._flusher.changed()

    # what is sampled, not observed

    def stock_sampled(self, coupon: Coupon) -> None:
        self._remaining.labels(coupon.name).set(coupon.remaining_amount)
        self._amount.labels(coupon.name).set(coupon.amount)

    def counter_drifted(self, coupon_name: str, units: int) -> None:
        if coupon_name in self.coupons:
            self._counter_drift.labels(coupon_name).set(units)
            self._drifts.labels(coupon_name).inc()

    def event_loop_lagged(self, seconds: float) -> None:
        self._loop_lag.observe(seconds)

    # the measured strategy

    def claim_ended(self, coupon_name: str, strategy: str, result: Outcome | BaseException, seconds: float) -> None:
        outcome = _OUTCOMES.get(type(result), _DEFECT)
        # Only coupons that exist compete for a label: made-up names cannot crowd them out. Those whose lock was wanted
        # exist as well, and an instance that never gets it must not hide its give-ups in `other`.
        exists = isinstance(result, Claimed | AlreadyClaimed | SoldOut | LockBusyError)
        label = self.coupons.count(coupon_name) if exists else self.coupons.label(coupon_name)
        self._claims_by[label, strategy, outcome].inc()
        self._claim_duration_by[strategy, outcome].observe(seconds)
        self._flusher.changed()

    def _exemplar(self) -> dict[str, str] | None:
        trace_id = self._trace_id() if self._trace_id is not None else None
        return None if trace_id is None else {"trace_id": trace_id}

    def _introduce(self, label: str) -> None:
        """Begin with 0 what is to be alarming at 1; see `Tallies`."""
        for metric in (self._retries, self._lost, self._held, self._drifts):
            metric.labels(label)

    def _retire(self, coupon_name: str) -> None:
        """Drop the series of a coupon that is not among the busiest any more."""
        tallied = (self._claims_by, self._attempts_by, self._wait_by, self._hold_by)
        for tallies in tallied:
            for labels in [labels for labels in tallies if labels[0] == coupon_name]:
                del tallies[labels]
        self._held_locks.forget(coupon_name)
        for metric in (
            self._claims,
            self._attempts,
            self._wait,
            self._hold,
            self._held,
            self._retries,
            self._lost,
            self._remaining,
            self._amount,
            self._counter_drift,
            self._drifts,
        ):
            metric.remove_by_labels({"coupon": coupon_name})
