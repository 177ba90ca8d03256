"""The declarations of all metrics."""

import platform
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

# Seconds, from a lock on loopback to the 1.5 s after which a claim gives up, and beyond for failures. A wait that
# reaches its limit (0.5 s for a master or a retry, 1.5 s for the lock) is observed slightly above it. Bounds of 0.6 and
# 1.6 keep these observations out of the next bucket, which would make quantiles appear up to twice as long.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.6, 1.0, 1.6, 2.0, 5.0, 10.0, 20.0)
_SIZE_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
# A ticket waits for as long as its queue allows: at most a day.
_TICKET_WAIT_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)


class Families:
    """The metrics in a registry. Rare events are recorded here directly, frequent ones through `Tallies`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, namespace="claimsvc", registry=registry)

        def histogram(name: str, text: str, *labels: str, buckets: tuple[float, ...] = BUCKETS) -> Histogram:
            return Histogram(name, text, labels, namespace="claimsvc", registry=registry, buckets=buckets)

        def total(name: str, text: str, *labels: str) -> Gauge:  # summed over the workers
            return Gauge(name, text, labels, namespace="claimsvc", registry=registry, multiprocess_mode="livesum")

        def shared(name: str, text: str, *labels: str) -> Gauge:  # the same for every worker
            return Gauge(name, text, labels, namespace="claimsvc", registry=registry, multiprocess_mode="mostrecent")

        def sampled(name: str, text: str, *labels: str) -> Gauge:  # the latest of the workers that run
            return Gauge(
                name, text, labels, namespace="claimsvc", registry=registry, multiprocess_mode="livemostrecent"
            )

        def least(name: str, text: str, *labels: str) -> Gauge:  # the minimum over the workers
            return Gauge(name, text, labels, namespace="claimsvc", registry=registry, multiprocess_mode="livemin")

        self.claims = counter("claims_total", "Claims answered.", "coupon", "strategy", "outcome")
        self.claim_duration = histogram(
            "claim_duration_seconds", "Time from a valid request to its outcome.", "strategy", "outcome"
        )
        self.attempts = counter("lock_attempts_total", "Attempts to take a coupon's lock.", "coupon", "result")
        self.wait = histogram(
            "lock_wait_seconds", "Time from requesting a lock to acquiring it or giving up.", "coupon", "result"
        )
        self.hold = histogram("lock_hold_seconds", "How long a lock was held.", "coupon")
        self.held = total("lock_held", "Locks held now.", "coupon")
        self.retries = counter("lock_retries_total", "Attempts after the first.", "coupon")
        self.waiters = total("lock_waiters", "Batches waiting for a lock now.")
        self.lost = counter("lock_lost_total", "Locks that were lost before they were released.", "coupon")
        self.hints = counter("lock_hints_total", "Hints between instances that a lock is free.", "result")
        self.combined = counter(
            "combined_claims_total",
            "Claims that one instance handed over (origin) and another decided for it (holder).",
            "coupon",
            "role",
        )
        self.combine_wait = histogram(
            "combine_wait_seconds", "Time from handing a batch over until its answer came.", "coupon"
        )
        self.taken_back = counter(
            "combine_taken_back_total",
            "Batches without an answer, which their origin took back: undecided, or decided already.",
            "coupon",
            "found",
        )
        self.batch_size = histogram("batch_size", "Claims decided together.", buckets=_SIZE_BUCKETS)
        self.waiting = total("claims_waiting", "Claims waiting for an answer.")
        self.remaining = shared("coupon_remaining", "Units of the coupon left.", "coupon")
        self.amount = shared("coupon_amount", "Total units of the coupon.", "coupon")
        self.requests = counter("http_requests_total", "Requests answered.", "method", "route", "status")
        self.request_duration = histogram(
            "http_request_duration_seconds", "Time from a request's headers to its response.", "route"
        )
        self.transaction = histogram("db_transaction_seconds", "Duration of a transaction that admits claims.")
        self.pool = total("db_pool_connections", "Connections to PostgreSQL.", "pool", "state")
        self.pool_limit = total("db_pool_limit", "Maximum connections to PostgreSQL.", "pool")
        self.counter_drift = shared(
            "counter_drift",
            "Units by which the Redis counter exceeded PostgreSQL when it was last corrected.",
            "coupon",
        )
        self.drifts = counter("drifts_mended_total", "Corrections of a Redis counter.", "coupon")
        self.master_up = least("redis_master_up", "1 if the master responds to every worker, else 0.", "master")
        self.master_memory = shared("redis_memory_bytes", "Memory used by the master.", "master")
        self.master_memory_limit = shared("redis_memory_limit_bytes", "Memory that the master may use.", "master")
        self.ready = least("ready", "1 if every worker is ready for requests, as /readyz tells, else 0.")
        self.dependency_up = least(
            "dependency_up", "1 if every worker can use the dependency, as /readyz tells, else 0.", "dependency"
        )
        self.call = histogram("redis_call_seconds", "Duration of a call of a master, failures included.", "master")
        self.quota_decisions = counter("quota_decisions_total", "Requests checked against a quota.", "policy", "result")
        self.loop_lag = histogram("event_loop_lag_seconds", "Delay of a timer of the event loop.")
        # The label is not `job`, because Prometheus sets that label for each scrape target.
        self.job_runs = counter("job_runs_total", "Passes of a background job.", "name", "result")
        self.job_duration = histogram(
            "job_seconds", "Duration of a pass of a background job that completed or failed.", "name"
        )
        self.job_items = counter(
            "job_items_total", "Holds expired, counters corrected, and rows removed by jobs.", "name"
        )
        self.violations = counter(
            "invariant_violations_total",
            "Transactions rolled back because an invariant would have been violated.",
        )
        self.tickets = counter("tickets_total", "Tickets that have ended.", "coupon", "end")
        self.ticket_wait = histogram(
            "ticket_wait_seconds", "Time from joining a queue to the start.", "coupon", buckets=_TICKET_WAIT_BUCKETS
        )
        self.dispatch_lag = histogram(
            "ticket_dispatch_lag_seconds", "By how much later than the pace allowed tickets were started."
        )
        self.tickets_waiting = sampled("tickets_waiting", "Tickets that wait. The same for every instance.", "coupon")
        self.longest_wait = sampled("ticket_longest_wait_seconds", "How long the first ticket has waited.", "coupon")
        self.longest_wait_share = sampled(
            "ticket_longest_wait_ratio", "How long the first ticket has waited, of what the queue allows.", "coupon"
        )
        self.stalled = sampled(
            "queue_stalled_seconds",
            "How long tickets have waited without a start, though the queue is not stopped on purpose.",
            "coupon",
        )
        self.queues_stopped = sampled("queues_stopped", "Queues in which tickets wait and are not started.", "reason")
        self.queues_sampled = sampled("queues_sampled_timestamp_seconds", "When the instance read the queues.")
        self.dead_letters = sampled("dead_letters", "What the service failed to do and an operator decides.", "kind")
        build = Gauge(
            "build_info",
            "Always 1; the labels are the versions.",
            ["version", "python"],
            namespace="claimsvc",
            registry=registry,
            multiprocess_mode="max",
        )
        build.labels(version("claimsvc"), platform.python_version()).set(1)
        for pool in ("claims", "reads"):
            for state in ("idle", "in_use"):
                self.pool.labels(pool, state)
        for result in ("sent", "used", "late"):
            self.hints.labels(result)
        for job in ("sweep", "reconcile", "purge"):
            self.job_items.labels(job)
            for result in ("done", "elsewhere", "failed"):
                self.job_runs.labels(job, result)
