"""Every job of the service, to be run on a schedule or by hand."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from claimsvc.domain import PurgeReport
from claimsvc.jobs.exclusive import run_alone
from claimsvc.jobs.loop import repeated
from claimsvc.jobs.purge import purge, purgeable
from claimsvc.jobs.reconcile import Drift, reconcile
from claimsvc.jobs.sweep import sweep
from claimsvc.ports import Counters, Coupons, JobObserver, Lock, Maintenance

_BY_ITSELF = "job:purge"


@dataclass(frozen=True, slots=True)
class Schedule:
    """Pauses between two passes of each job, in seconds."""

    sweep_seconds: float
    reconcile_seconds: float
    purge_seconds: float


class Jobs:
    """The jobs, each done by one instance at a time. Without the lock's masters none of them runs.

    Args:
        lock: one whose observer takes no job for a coupon.
        settle_seconds: see `reconcile`.
        drifted: told what `reconcile` is to be told.
        purge_after_days: see `purge`.
        patient: see `run_alone`; for jobs that are run by hand.
    """

    def __init__(
        self,
        lock: Lock,
        coupons: Coupons,
        upkeep: Maintenance,
        counters: Counters,
        observer: JobObserver,
        *,
        settle_seconds: float,
        drifted: Callable[[str, int], None],
        purge_after_days: int,
        patient: bool = False,
    ) -> None:
        self._lock = lock
        self._coupons = coupons
        self._upkeep = upkeep
        self._counters = counters
        self._observer = observer
        self._settle_seconds = settle_seconds
        self._drifted = drifted
        self._purge_after_days = purge_after_days
        self._patient = patient

    async def reconcile(self) -> list[Drift] | None:
        """Set right every counter that has drifted. Which; None if another instance is at it."""
        drifts: list[Drift] = []

        async def counted() -> AsyncGenerator[int, None]:
            async for found in reconcile(
                self._coupons, self._counters, settle_seconds=self._settle_seconds, observe=self._drifted
            ):
                drifts.extend(found)
                yield len(found)

        return drifts if await self._run_alone("reconcile", counted()) else None

    async def sweep(self) -> int | None:
        """Give back the units of holds that are over. How many; None if another instance is at it."""
        units = 0

        async def counted() -> AsyncGenerator[int, None]:
            nonlocal units
            async for returned in sweep(self._upkeep, self._counters):
                units += returned
                yield returned

        return units if await self._run_alone("sweep", counted()) else None

    async def purge(self, *, actor: str = _BY_ITSELF) -> PurgeReport | None:
        """Remove what nobody asks for any more. What that was; None if another instance is at it.

        Args:
            actor: see `purge`.
        """
        report = PurgeReport()
        chunks = purge(self._upkeep, self._counters, report, after_days=self._purge_after_days, actor=actor)
        return report if await self._run_alone("purge", chunks) else None

    async def purgeable(self) -> PurgeReport:
        """What a purge would remove now."""
        return await purgeable(self._upkeep, after_days=self._purge_after_days)

    @asynccontextmanager
    async def running(self, schedule: Schedule) -> AsyncIterator[None]:
        """Run all of them again and again while inside."""
        async with AsyncExitStack() as stack:
            for job, run_once, seconds in (
                ("sweep", self.sweep, schedule.sweep_seconds),
                ("reconcile", self.reconcile, schedule.reconcile_seconds),
                ("purge", self.purge, schedule.purge_seconds),
            ):
                await stack.enter_async_context(repeated(run_once, every_seconds=seconds, name=job))
            yield

    async def _run_alone(self, job: str, chunks: AsyncGenerator[int, None]) -> bool:
        return await run_alone(self._lock, job, chunks, self._observer, patient=self._patient)
