"""Observers: what each room reports for metrics and the console."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from claimsvc.domain import QueueStatus, TicketState


class JobObserver(Protocol):
    """Observes background jobs.

    A `job` is `sweep`, `reconcile` or `purge`. Its `result` is `done`, `failed`, or `elsewhere` if another instance was
    running it. Its `items` are expired holds, counters corrected, or rows removed.
    """

    def job_ended(self, job: str, result: str, seconds: float, items: int) -> None: ...


class HealthCheck(Protocol):
    """Checks one dependency for `/readyz`."""

    async def __call__(self) -> None:
        """Check the dependency.

        Raises:
            UnavailableError: it is not usable; the message says why.
        """
        ...


class ReadinessObserver(Protocol):
    """Observes readiness.

    `ready` is what `/readyz` answers, and `dependencies` whether each dependency is usable, by its name. Both are
    reported once a second, and when the instance begins to stop.
    """

    def readiness_checked(self, ready: bool, dependencies: Mapping[str, bool]) -> None: ...


class BatchObserver(Protocol):
    """Observes the batcher."""

    def batched(self, size: int) -> None: ...
    def claims_waiting(self, count: int) -> None: ...


class StorageObserver(Protocol):
    """Observes PostgreSQL.

    A `pool` is `claims` or `reads`. The `state` of a connection is `idle` or `in_use`; `change` is a difference.
    """

    def transaction_ended(self, seconds: float) -> None: ...
    def pool_changed(self, pool: str, state: str, change: int) -> None: ...
    def invariant_violated(self) -> None: ...


class MasterObserver(Protocol):
    """Observes the clients of the masters.

    Whether a master is up is reported at the start and after each probe. The `seconds` of a call include failures; a
    call that is skipped because the master is known to be down is not reported. `limit_bytes` is the memory that a
    master may use, or that its machine has.
    """

    def master_probed(self, master: str, up: bool) -> None: ...
    def master_memory(self, master: str, used_bytes: int, limit_bytes: int) -> None: ...
    def master_called(self, master: str, seconds: float) -> None: ...


class QuotaObserver(Protocol):
    """Observes quotas. A `result` is `allowed`, `refused` or `unknown`."""

    def quota_decided(self, quota_name: str, result: str) -> None: ...


class TicketObserver(Protocol):
    """Observes the queues of coupons, on the instance that starts their tickets."""

    def ticket_started(self, coupon_name: str, waited_seconds: float) -> None:
        """Receive each ticket that is started for the first time, and how long it had waited."""
        ...

    def ticket_ended(self, coupon_name: str, end: TicketState) -> None:
        """Receive each end of a ticket that this instance has written."""
        ...

    def dispatched(self, lag_seconds: float) -> None:
        """Receive, with each pass that started a ticket, by how long it was later than the pace allowed."""
        ...

    def queues_sampled(self, statuses: Sequence[QueueStatus]) -> None:
        """Receive the state of all queues, every few seconds."""
        ...
