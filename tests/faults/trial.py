"""One run of a scenario on a cluster: its load, its fault, its healing, and the checks at its end."""

import asyncio
import random
import time
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from tests.faults import checks, ticket_checks
from tests.faults.checks import UNEXPECTED, Violation
from tests.support.cluster import Cluster
from tests.support.history import History
from tests.support.instance import ClusterError, Instance
from tests.support.load import Load, Plan
from tests.support.ticket_log import Tickets
from tests.support.waiting import comes_about

if TYPE_CHECKING:
    from tests.faults.scenario import Row

# I13: claims succeed again within the lock's TTL and this.
RECOVERY_SECONDS = 5.0
_PROGRESS_SECONDS = 60.0
# What is under way when the load ends is over by then, whatever has timed out meanwhile.
_QUIET_SECONDS = 15.0
# Longer than a lease, and than the longest back-off after a few tries.
_STUCK_SECONDS = 30.0


_T = TypeVar("_T")


class Trial:
    """What a scenario works with; `Context.trial` makes it and finishes it.

    `violations` and `notes` are the scenario's to add to; `row` is there once the trial is over. `resources` are left
    after the last check, before the servers are.

    Args:
        full: as in `Context`.
        per_second: the claims of a load whose plan names no number; None for as fast as they get answers.
    """

    row: "Row"

    def __init__(
        self,
        cluster: Cluster,
        history: History,
        rng: random.Random,
        *,
        full: bool,
        per_second: float | None = None,
    ) -> None:
        self.cluster = cluster
        self.history = history
        self.rng = rng
        self.full = full
        self._per_second = per_second
        self.times_fired = 0
        self.tickets: Tickets | None = None
        # Run once all tickets have been read.
        self.conclusions: list[Callable[[Tickets], None]] = []
        # By how many seconds PostgreSQL's clock was wrong at one time or another.
        self.clock_offsets: list[float] = []
        self.violations: list[Violation] = []
        self.notes: list[str] = []
        self.resources = AsyncExitStack()
        self._loads: list[Load] = []
        self._healed_at: int | None = None

    async def use(self, manager: AbstractContextManager[_T]) -> _T:
        """Enter what blocks, in a thread; it is left with the other `resources`."""
        return await asyncio.to_thread(self.resources.enter_context, manager)

    def load(self, plan: Plan, targets: list[Instance] | None = None) -> Load:
        """Load on the instances, from entering it to leaving it."""
        if plan.per_second is None:
            plan = replace(plan, per_second=self._per_second)
        made = Load(targets or self.cluster.instances, plan, self.history, self.rng, name=f"u{len(self._loads) + 1}")
        self._loads.append(made)
        return made

    def fired(self, times: int = 1) -> None:
        """The fault was there: for certain, and not just asked for."""
        self.times_fired += times

    def healed(self) -> None:
        """From now on the service must recover by itself."""
        self._healed_at = time.monotonic_ns()

    def expect(self, condition: bool, text: str, kind: str = UNEXPECTED) -> None:
        """Note a violation unless the condition holds."""
        if not condition:
            self.violations.append(Violation(kind, text))

    async def acknowledged(self, more: int, timeout_seconds: float = _PROGRESS_SECONDS) -> None:
        """Wait until so many more claims have been acknowledged."""
        target = self.history.acknowledged + more
        if not await self.until(lambda: self.history.acknowledged >= target, timeout_seconds):
            missing = target - self.history.acknowledged
            raise ClusterError(f"{missing} of {more} claims were still not acknowledged after {timeout_seconds:.0f} s")

    async def until(self, condition: Callable[[], bool], timeout_seconds: float) -> bool:
        """Wait for a condition, so long at most. Returns whether it came."""
        return await comes_about(condition, timeout_seconds)

    async def recovered(self, more: int = 50) -> None:
        """Wait until claims succeed again, for longer than they may take: the checks say if it was too long."""
        try:
            await self.acknowledged(more, self.cluster.lock_ttl_seconds + 3 * RECOVERY_SECONDS)
        except ClusterError as error:
            self.violations.append(Violation(checks.NOT_RECOVERED, str(error)))

    def unavailable_seconds(self) -> float:
        """The longest stretch under load in which no claim was decided."""
        return max(
            (
                checks.longest_gap_seconds(self.history.invocations, load.begun_at, load.ended_at)
                for load in self._loads
                if load.ended_at
            ),
            default=0.0,
        )

    async def finish(self) -> None:
        """Wait for quiet, and check everything."""
        self.history.flush()
        if self.cluster.has_queues:
            await self.all_have_ended()
        quiet = await self.cluster.quiet(self.cluster.lock_ttl_seconds + _QUIET_SECONDS)
        snapshot = await asyncio.to_thread(self.cluster.snapshot)
        invocations = self.history.invocations
        self.violations += checks.check_quiet(quiet)
        queued: Collection[str] = ()
        if self.cluster.has_queues:
            self.tickets = await asyncio.to_thread(self.cluster.tickets, self.clock_offsets)
            queued = self.tickets.queues
            self.violations += ticket_checks.check_tickets(
                invocations,
                snapshot.claims,
                self.tickets,
                {each.name for each in snapshot.coupons.values() if not each.remaining},
            )
            for conclude in self.conclusions:
                conclude(self.tickets)
        self.violations += checks.check_all(invocations, snapshot, queued)
        if self._healed_at is not None:
            self.violations += checks.check_recovery(
                invocations, self._healed_at, self.cluster.lock_ttl_seconds + RECOVERY_SECONDS
            )

    async def joined(self, more: int, timeout_seconds: float = _PROGRESS_SECONDS) -> None:
        """Wait until so many more requests were told that they wait."""
        target = self.history.joined + more
        if not await self.until(lambda: self.history.joined >= target, timeout_seconds):
            raise ClusterError(f"only {self.history.joined} of {target} joined a queue in {timeout_seconds:.0f} s")

    async def all_have_ended(self) -> None:
        """Wait until no ticket waits or is started, as long as some of them end; what is left, the checks tell."""
        left, since = -1, time.monotonic()
        while (now := await asyncio.to_thread(self.cluster.tickets_left)) and time.monotonic() - since < _STUCK_SECONDS:
            if now != left:
                left, since = now, time.monotonic()
            await asyncio.sleep(0.2)
