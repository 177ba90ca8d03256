"""The metrics registry: implements the observers of the other rooms."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.gc_collector import GCCollector
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.process_collector import ProcessCollector

from claimsvc.domain import (
    TICKET_ENDS,
    ClaimOutcome,
    Coupon,
    KeyReused,
    QueueStatus,
    Replayed,
    TicketState,
    UnknownCoupon,
)
from claimsvc.domain.outcomes import claim_result_names, name_of, rows
from claimsvc.errors import LockBusyError
from claimsvc.observability.metrics.busiest import OTHER, BusiestCoupons
from claimsvc.observability.metrics.families import Families
from claimsvc.observability.metrics.queues import QueueGauges
from claimsvc.observability.metrics.tallies import Flusher, HeldLocks, Tallies, TraceId
from claimsvc.observability.metrics.workers import WorkersCollector

# Outcomes that show that the coupon exists. A replayed answer does not.
_OF_COUPONS_THAT_EXIST = {*(kind for kind, _ in rows(ClaimOutcome)), LockBusyError} - {
    UnknownCoupon,
    Replayed,
    KeyReused,
}
_ALL_OUTCOMES = claim_result_names()

_SHARED_REPLACEMENTS = 900


class Metrics:
    """The metrics of one process. Implements the observers of `ports` and of the HTTP server.

    With several workers, PROMETHEUS_MULTIPROC_DIR is set before the process starts. Each worker then stores its values
    in files there, and any worker renders the values of all. These files cannot store exemplars.

    Args:
        trace_id: returns the trace id of the current observation, for exemplars; None without tracing.
    """

    def __init__(self, trace_id: TraceId | None = None) -> None:
        self._trace_id = trace_id
        self._shared = "PROMETHEUS_MULTIPROC_DIR" in os.environ
        self._registry = CollectorRegistry()
        self.coupons = (
            BusiestCoupons(replacements=_SHARED_REPLACEMENTS, on_labelled=self._introduce)
            if self._shared
            else BusiestCoupons(on_labelled=self._introduce, on_retired=self._retire)
        )
        self.families = families = Families(self._registry)
        self._introduce(OTHER)
        self.claims_by = Tallies(families.claims, lambda labels: [(*labels[:2], outcome) for outcome in _ALL_OUTCOMES])
        self.claim_duration_by = Tallies(families.claim_duration, trace_id=trace_id)
        self.attempts_by = Tallies(families.attempts)
        self.wait_by = Tallies(families.wait, trace_id=trace_id)
        self.hold_by = Tallies(families.hold, trace_id=trace_id)
        self.calls_by = Tallies(families.call, trace_id=trace_id)
        self.requests_by = Tallies(families.requests)
        self.objective_routes: set[tuple[str, str]] = set()
        self._request_duration_by = Tallies(families.request_duration, trace_id=trace_id)
        self._quota_decisions_by = Tallies(families.quota_decisions)
        self._tickets_by = Tallies(families.tickets, lambda labels: [(labels[0], end) for end in TICKET_ENDS])
        self._ticket_wait_by = Tallies(families.ticket_wait)
        self._queues = QueueGauges(families, self.coupons)
        self.held_locks = HeldLocks(families.held, self.coupons)
        self._flusher = Flusher(
            (
                self.claims_by,
                self.claim_duration_by,
                self.attempts_by,
                self.wait_by,
                self.hold_by,
                self.calls_by,
                self.requests_by,
                self._request_duration_by,
                self._quota_decisions_by,
                self._tickets_by,
                self._ticket_wait_by,
                self.held_locks,
            ),
            by_itself=self._shared,
        )
        if not self._shared:
            ProcessCollector(registry=self._registry)
            GCCollector(registry=self._registry)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Return the metrics of all workers, and the content type: OpenMetrics, which includes exemplars, or text.

        Args:
            accept: the request's Accept header.
        """
        return self.begin_render(accept)()

    def begin_render(self, accept: str = "") -> Callable[[], tuple[bytes, str]]:
        """Prepare a rendering. Its arguments and the result of what is returned are those of `render`.

        What is returned may be called in a thread, while metrics are observed; this method may not.
        """
        self.flush()
        return partial(self._render, accept)

    def _render(self, accept: str) -> tuple[bytes, str]:
        registry = self._registry
        if self._shared:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
            registry.register(WorkersCollector(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])))
        # prometheus_client's own content negotiation fails if a version is not a number.
        if "application/openmetrics-text" in accept:
            return openmetrics.generate_latest(registry), openmetrics.CONTENT_TYPE_LATEST  # type: ignore[no-untyped-call]
        return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4

    def flush(self) -> None:
        """Add all tallies to the metrics, from which they are read."""
        self._flusher.flush()

    # ports.ReadinessObserver

    def readiness_checked(self, ready: bool, dependencies: Mapping[str, bool]) -> None:
        self.families.ready.set(ready)
        for dependency, usable in dependencies.items():
            self.families.dependency_up.labels(dependency).set(usable)

    # ports.MasterObserver

    def master_probed(self, master: str, up: bool) -> None:
        self.families.master_up.labels(master).set(up)

    def master_memory(self, master: str, used_bytes: int, limit_bytes: int) -> None:
        self.families.master_memory.labels(master).set(used_bytes)
        self.families.master_memory_limit.labels(master).set(limit_bytes)

    def master_called(self, master: str, seconds: float) -> None:
        self.calls_by[master,].observe(seconds)
        self._flusher.changed()

    # ports.LockObserver

    def attempted(self, coupon_name: str, result: str) -> None:
        self.attempts_by[self.coupons.label(coupon_name), result].inc()
        self._flusher.changed()

    def retried(self, coupon_name: str) -> None:
        self.families.retries.labels(self.coupons.label(coupon_name)).inc()

    def waited(self, coupon_names: Sequence[str], result: str, seconds: float) -> None:
        for label, times in self.coupons.labels(coupon_names).items():
            self.wait_by[label, result].observe(seconds, times)
        self._flusher.changed()

    def taken(self, coupon_names: Sequence[str]) -> None:
        self.held_locks.add(coupon_names)
        self._flusher.changed()

    def held(self, coupon_names: Sequence[str], seconds: float) -> None:
        self.held_locks.remove(coupon_names)
        for label, times in self.coupons.labels(coupon_names).items():
            self.hold_by[label,].observe(seconds, times)
        self._flusher.changed()

    def lost(self, coupon_name: str) -> None:
        self.families.lost.labels(self.coupons.label(coupon_name)).inc()

    def hinted(self, result: str) -> None:
        self.families.hints.labels(result).inc()

    def lock_waiters(self, change: int) -> None:
        self.families.waiters.inc(change)

    # ports.CombineObserver

    def combined(self, coupon_name: str, role: str, claims: int) -> None:
        self.families.combined.labels(self.coupons.label(coupon_name), role).inc(claims)

    def combine_waited(self, coupon_name: str, seconds: float) -> None:
        self.families.combine_wait.labels(self.coupons.label(coupon_name)).observe(seconds)

    def taken_back(self, coupon_name: str, found: str) -> None:
        self.families.taken_back.labels(self.coupons.label(coupon_name), found).inc()

    # ports.BatchObserver

    def batched(self, size: int) -> None:
        self.families.batch_size.observe(size)

    def claims_waiting(self, count: int) -> None:
        self.families.waiting.set(count)

    # ports.QuotaObserver

    def quota_decided(self, quota_name: str, result: str) -> None:
        self._quota_decisions_by[quota_name, result].inc()
        self._flusher.changed()

    # ports.TicketObserver

    def ticket_started(self, coupon_name: str, waited_seconds: float) -> None:
        self._ticket_wait_by[self.coupons.label(coupon_name),].observe(waited_seconds)
        self._flusher.changed()

    def ticket_ended(self, coupon_name: str, end: TicketState) -> None:
        self._tickets_by[self.coupons.label(coupon_name), end].inc()
        self._flusher.changed()

    def dispatched(self, lag_seconds: float) -> None:
        self.families.dispatch_lag.observe(lag_seconds)

    def queues_sampled(self, statuses: Sequence[QueueStatus]) -> None:
        self._queues.sampled(statuses)

    # ports.StorageObserver

    def transaction_ended(self, seconds: float) -> None:
        self.families.transaction.observe(seconds, self._exemplar())

    def pool_changed(self, pool: str, state: str, change: int) -> None:
        self.families.pool.labels(pool, state).inc(change)

    def invariant_violated(self) -> None:
        self.families.violations.inc()

    def pool_limited(self, pool: str, connections: int) -> None:
        """Report the maximum size of a pool. Called once for each."""
        self.families.pool_limit.labels(pool).set(connections)

    # ports.JobObserver

    def job_ended(self, job: str, result: str, seconds: float, items: int) -> None:
        self.families.job_runs.labels(job, result).inc()
        self.families.job_items.labels(job).inc(items)
        if result != "elsewhere":
            self.families.job_duration.labels(job).observe(seconds)

    # The observer of the HTTP server

    def expect_requests(self, method: str, route: str, statuses: Iterable[int]) -> None:
        """Create series with the value 0 for statuses that must alert from the first occurrence; see `Tallies`."""
        self.objective_routes.add((method, route))
        for status in statuses:
            self.families.requests.labels(method, route, status)

    def observed(self, method: str, route: str, status: int, seconds: float) -> None:
        self.requests_by[method, route, status].inc()
        self._request_duration_by[route,].observe(seconds)
        self._flusher.changed()

    # Sampled values

    def stock_sampled(self, coupon: Coupon) -> None:
        self.families.remaining.labels(coupon.name).set(coupon.remaining_amount)
        self.families.amount.labels(coupon.name).set(coupon.amount)

    def counter_drifted(self, coupon_name: str, units: int) -> None:
        if coupon_name in self.coupons:
            self.families.counter_drift.labels(coupon_name).set(units)
            self.families.drifts.labels(coupon_name).inc()

    def event_loop_lagged(self, seconds: float) -> None:
        self.families.loop_lag.observe(seconds)

    # For `MeteredStrategy`

    def claim_ended(
        self, coupon_name: str, strategy: str, result: ClaimOutcome | BaseException, seconds: float
    ) -> None:
        outcome = name_of(result)
        # Only existing coupons compete for a label, so that invented names cannot displace them. A coupon whose lock
        # was busy exists as well: an instance that never gets the lock must not count its give-ups as `other`.
        exists = type(result) in _OF_COUPONS_THAT_EXIST
        label = self.coupons.count(coupon_name) if exists else self.coupons.label(coupon_name)
        self.claims_by[label, strategy, outcome].inc()
        self.claim_duration_by[strategy, outcome].observe(seconds)
        self._flusher.changed()

    def _exemplar(self) -> dict[str, str] | None:
        trace_id = self._trace_id() if self._trace_id is not None else None
        return None if trace_id is None else {"trace_id": trace_id}

    def _introduce(self, label: str) -> None:
        """Create series with the value 0 for events that must alert from the first occurrence; see `Tallies`."""
        for metric in (self.families.retries, self.families.lost, self.families.held, self.families.drifts):
            metric.labels(label)

    def _retire(self, coupon_name: str) -> None:
        """Remove the series of a coupon that is no longer among the busiest."""
        tallied = (
            self.claims_by,
            self.attempts_by,
            self.wait_by,
            self.hold_by,
            self._tickets_by,
            self._ticket_wait_by,
        )
        for tallies in tallied:
            for labels in [labels for labels in tallies if labels[0] == coupon_name]:
                del tallies[labels]
        self.held_locks.forget(coupon_name)
        self._queues.forget(coupon_name)
        for metric in (
            self.families.claims,
            self.families.attempts,
            self.families.wait,
            self.families.hold,
            self.families.held,
            self.families.retries,
            self.families.lost,
            self.families.remaining,
            self.families.amount,
            self.families.counter_drift,
            self.families.drifts,
            self.families.tickets,
            self.families.ticket_wait,
            self.families.tickets_waiting,
            self.families.longest_wait,
            self.families.longest_wait_share,
            self.families.stalled,
        ):
            metric.remove_by_labels({"coupon": coupon_name})
