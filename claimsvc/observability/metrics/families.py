"""Every metric that this service exports, by name: what Prometheus reads."""

import platform
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

# Seconds. From a lock on loopback to the 1.5 s after which a claim gives up, and beyond it to what is broken. Who waits
# until a limit (0.5 s for a master or a retry, 1.5 s for the lock) tells so a little after it: a bound of just that
# would put all of them into the bucket above, and quantiles would be read as up to twice what anybody can have waited.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.6, 1.0, 1.6, 2.0, 5.0, 10.0, 20.0)
_SIZE_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Families:
    """The metrics themselves, in a registry. What is rare is written to them, the rest is tallied first."""

    def __init__(self, registry: CollectorRegistry) -> None:
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

        self.claims = counter("claims_total", "Claims answered.", "coupon", "strategy", "outcome")
        self.claim_duration = histogram(
            "claim_duration_seconds", "From a valid request to its outcome.", "strategy", "outcome"
        )
        self.attempts = counter("lock_attempts_total", "Attempts to take a coupon's lock.", "coupon", "result")
        self.wait = histogram("lock_wait_seconds", "From wanting a lock to having it or giving up.", "coupon", "result")
        self.hold = histogram("lock_hold_seconds", "How long a lock was held.", "coupon")
        self.held = total("lock_held", "Locks that are held now.", "coupon")
        self.retries = counter("lock_retries_total", "Attempts after the first.", "coupon")
        self.waiters = total("lock_waiters", "Leaders that are waiting for a lock now.")
        self.lost = counter("lock_lost_total", "Locks that were no longer ours when they were given back.", "coupon")
        self.hints = counter("lock_hints_total", "Hints that a lock is free, between instances.", "result")
        self.batch_size = histogram("batch_size", "Claims that were admitted together.", buckets=_SIZE_BUCKETS)
        self.waiting = total("claims_waiting", "Claims that have no answer yet.")
        self.remaining = shared("coupon_remaining", "Units of the coupon left.", "coupon")
        self.amount = shared("coupon_amount", "Units of the coupon offered.", "coupon")
        self.requests = counter("http_requests_total", "Requests answered.", "method", "route", "status")
        self.request_duration = histogram(
            "http_request_duration_seconds", "From a request's headers to its answer.", "route"
        )
        self.transaction = histogram("db_transaction_seconds", "One transaction that admits claims.")
        self.pool = total("db_pool_connections", "Connections to PostgreSQL.", "state")
        self.pool_limit = total("db_pool_limit", "Most connections to PostgreSQL.")
        self.counter_drift = shared(
            "counter_drift", "Counter in Redis less PostgreSQL when last set right, in units.", "coupon"
        )
        self.drifts = counter("drifts_mended_total", "Times that a counter was found wrong and set right.", "coupon")
        self.master_up = least("redis_master_up", "1 if the master answers every worker, else 0.", "master")
        self.master_memory = shared("redis_memory_bytes", "Memory that the master uses.", "master")
        self.master_memory_limit = shared("redis_memory_limit_bytes", "Memory that the master may use.", "master")
        self.call = histogram("redis_call_seconds", "From a call of a master to its answer or failure.", "master")
        self.quota_decisions = counter(
            "quota_decisions_total", "Requests that were counted against a quota, or could not be.", "policy", "result"
        )
        self.loop_lag = histogram("event_loop_lag_seconds", "How late a sleeping task of this process was woken.")
        # Not by `job`: that label is Prometheus's own, of whatever it scrapes.
        self.job_runs = counter("job_runs_total", "Passes of a background job.", "name", "result")
        self.job_duration = histogram("job_seconds", "One pass of a background job that was done or failed.", "name")
        self.job_items = counter("job_items_total", "Holds ended, counters mended, rows removed by jobs.", "name")
        self.violations = counter(
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
            self.pool.labels(state)
        for result in ("sent", "used", "late"):
            self.hints.labels(result)
        for job in ("sweep", "reconcile", "purge"):
            self.job_items.labels(job)
            for result in ("done", "elsewhere", "failed"):
                self.job_runs.labels(job, result)
