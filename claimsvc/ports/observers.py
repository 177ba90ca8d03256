"""Who watches each room."""

from typing import Protocol


class JobObserver(Protocol):
    """What the jobs tell whoever watches them.

    A `job` is `sweep`, `reconcile` or `purge`. Its `result` is `done`, `failed`, or `elsewhere` when another instance
    was at it. Its `items` are holds that ended, counters that had drifted, or rows that were removed.
    """

    def job_ended(self, job: str, result: str, seconds: float, items: int) -> None: ...


class HealthCheck(Protocol):
    """One dependency, as `/readyz` sees it."""

    async def __call__(self) -> None:
        """Return if it is usable; else raise `UnavailableError` that says what is wrong."""
        ...


class BatchObserver(Protocol):
    """What the batcher tells whoever watches it."""

    def batched(self, size: int) -> None: ...
    def claims_waiting(self, count: int) -> None: ...


class StorageObserver(Protocol):
    """What the storage tells whoever watches it. A connection's `state` is `idle` or `in_use`."""

    def transaction_ended(self, seconds: float) -> None: ...
    def pool_changed(self, state: str, change: int) -> None: ...
    def invariant_violated(self) -> None: ...


class MasterObserver(Protocol):
    """What the clients of the masters tell whoever watches them.

    Whether a master is up is told once at the start, then after each probe. A call's `seconds` end with its answer or
    with its failure; a call that was not made, because the master is known to be down, is not told. Of a master's
    memory, `limit_bytes` is what it may use, or what its machine has.
    """

    def master_probed(self, master: str, up: bool) -> None: ...
    def master_memory(self, master: str, used_bytes: int, limit_bytes: int) -> None: ...
    def master_called(self, master: str, seconds: float) -> None: ...


class QuotaObserver(Protocol):
    """What the quotas tell whoever watches them. A `result` is `allowed`, `refused` or `unknown`."""

    def quota_decided(self, quota_name: str, result: str) -> None: ...
