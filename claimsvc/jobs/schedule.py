"""All jobs of the service, run on a schedule or by an operator."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from claimsvc.domain import PurgeReport
from claimsvc.jobs.exclusive import run_exclusively
from claimsvc.jobs.loop import repeated
from claimsvc.jobs.purge import purge, purgeable
from claimsvc.jobs.reconcile import Drift, reconcile
from claimsvc.jobs.sweep import sweep
from claimsvc.ports import Counters, Coupons, JobObserver, Lock, Maintenance

_SCHEDULED = "job:purge"


@dataclass(frozen=True, slots=True)
class Schedule:
    """Pauses between two passes of each job, in seconds."""

    sweep_seconds: float
    reconcile_seconds: float
    purge_seconds: float


class Jobs:
    """The jobs. Each runs on one instance at a time, and none runs without a majority of the masters.

    Args:
        lock: a lock that does not report the jobs' locks as coupons (`Redlocks.without_metrics`).
        storage: the database, for claims.
        maintenance: the database, for maintenance.
        counters: the counters in Redis.
        observer: receives the result of every job.
        settle_seconds: see `reconcile`.
        drifted: the `observe` of `reconcile`.
        purge_after_days: see `purge`.
        wait_for_lock: see `run_exclusively`; for jobs that an operator runs.
    """

    def __init__(
        self,
        lock: Lock,
        coupons: Coupons,
        maintenance: Maintenance,
        counters: Counters,
        observer: JobObserver,
        *,
        settle_seconds: float,
        drifted: Callable[[str, int], None],
        purge_after_days: int,
        wait_for_lock: bool = False,
    ) -> None:
        self._lock = lock
        self._coupons = coupons
        self._maintenance = maintenance
        self._counters = counters
        self._observer = observer
        self._settle_seconds = settle_seconds
        self._drifted = drifted
        self._purge_after_days = purge_after_days
        self._wait_for_lock = wait_for_lock

    async def reconcile(self) -> list[Drift] | None:
        """Correct the counters that have drifted, and return them; None if another instance runs this job."""
        drifts: list[Drift] = []

        async def counted() -> AsyncGenerator[int, None]:
            async for found in reconcile(
                self._coupons, self._counters, settle_seconds=self._settle_seconds, observe=self._drifted
            ):
                drifts.extend(found)
                yield len(found)

        return drifts if await self._run_exclusively("reconcile", counted()) else None

    async def sweep(self) -> int | None:
        """Return the units of expired holds to stock. Returns how many; None if another instance runs this job."""
        units = 0

        async def counted() -> AsyncGenerator[int, None]:
            nonlocal units
            async for returned in sweep(self._maintenance, self._counters):
                units += returned
                yield returned

        return units if await self._run_exclusively("sweep", counted()) else None

    async def purge(self, *, actor: str = _SCHEDULED) -> PurgeReport | None:
        """Purge, and return what was removed; None if another instance runs this job.

        Args:
            actor: see `purge`.
        """
        report = PurgeReport()
        chunks = purge(self._maintenance, self._counters, report, after_days=self._purge_after_days, actor=actor)
        return report if await self._run_exclusively("purge", chunks) else None

    async def purgeable(self) -> PurgeReport:
        """Count what a purge would remove now."""
        return await purgeable(self._maintenance, after_days=self._purge_after_days)

    @asynccontextmanager
    async def running(self, schedule: Schedule) -> AsyncIterator[None]:
        """Run all jobs on schedule while the context is active."""
        async with AsyncExitStack() as stack:
            for job, run_once, seconds in (
                ("sweep", self.sweep, schedule.sweep_seconds),
                ("reconcile", self.reconcile, schedule.reconcile_seconds),
                ("purge", self.purge, schedule.purge_seconds),
            ):
                await stack.enter_async_context(repeated(run_once, every_seconds=seconds, name=job))
            yield

    async def _run_exclusively(self, job: str, chunks: AsyncGenerator[int, None]) -> bool:
        return await run_exclusively(self._lock, job, chunks, self._observer, wait_for_lock=self._wait_for_lock)
