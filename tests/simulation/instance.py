"""One instance of the service without its HTTP side, put together from the real parts, and the clients that use it."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from claimsvc.claiming.batching import BatchLimits, WaitingRoom
from claimsvc.claiming.combining import Combiner
from claimsvc.claiming.strategies import CounterStrategy, RedlockStrategy, RowLockStrategy, StrategyByCoupon
from claimsvc.domain import Claimed, ClaimOutcome
from claimsvc.errors import ClaimsvcError
from claimsvc.ports import Claims, Strategy
from claimsvc.redis.counters import RedisCounters
from claimsvc.redis.lock import open_redlocks
from claimsvc.redis.masters import open_masters
from tests.simulation.database import SimulatedDatabase
from tests.simulation.loop import SimulatedLoop
from tests.simulation.network import FIRST_PORT, REDIS_TIMEOUT_SECONDS
from tests.simulation.scenario import (
    LOCK_RETRIES,
    LOCK_RETRY_WAIT_SECONDS,
    ClaimPlan,
    ClientPlan,
    CouponPlan,
    Moment,
    Scenario,
)
from tests.support.observed import Observed

LOCK_TIMEOUT_SECONDS = LOCK_RETRIES * LOCK_RETRY_WAIT_SECONDS
CLAIM_TIMEOUT_SECONDS = 10.0


@dataclass
class Record:
    """One claim as its client saw it. `ended` None: there was no answer."""

    process: int
    coupon: CouponPlan
    user: str
    started: float
    hung_up: bool = False
    ended: float | None = None
    answer: ClaimOutcome | BaseException | None = None


class Instance:
    """The claim path of one process, and what it has been asked.

    Args:
        process: its number in the simulated loop.
    """

    def __init__(self, process: int, scenario: Scenario, loop: SimulatedLoop, database: SimulatedDatabase) -> None:
        self.process = process
        self.records: list[Record] = []
        self.observed = Observed()
        self.counters: RedisCounters
        self.room: WaitingRoom
        self.combines = process - 1 not in scenario.old_instances
        self.combiner: Combiner | None = None
        self.is_stopping = False
        self.drained_in: float | None = None
        self.left_waiting = 0
        self._scenario = scenario
        self._loop = loop
        self._database = database
        self._claims: Claims | None = None
        self._ready = asyncio.Event()
        self._stop = asyncio.Event()

    async def serve(self) -> None:
        """Run from the opening of its clients to their closing, as `claimsvc.bootstrap` does it."""
        scenario, observed, name = self._scenario, self.observed, f"instance-{self.process}"
        urls = [f"redis://simulated:{FIRST_PORT + number}" for number in range(scenario.masters)]
        async with (
            open_masters(urls, timeout_seconds=REDIS_TIMEOUT_SECONDS, pool_size=32, observer=observed) as masters,
            open_redlocks(
                masters.all,
                ttl_seconds=scenario.ttl_seconds,
                retries=LOCK_RETRIES,
                retry_wait_seconds=LOCK_RETRY_WAIT_SECONDS,
                observer=observed,
                instance=name,
                combines=self.combines,
            ) as lock,
        ):
            if lock.post is not None:
                self.combiner = Combiner(name, lock.post, observed)
            limits = BatchLimits(
                batch_size=scenario.batch_size,
                lock_timeout_seconds=LOCK_TIMEOUT_SECONDS,
                queue_timeout_seconds=scenario.queue_timeout_seconds,
                claim_timeout_seconds=CLAIM_TIMEOUT_SECONDS,
                concurrent_rounds=scenario.concurrent_rounds,
            )
            room = self.room = WaitingRoom(scenario.waiting_limit, observed)
            database = self._database
            self.counters = RedisCounters(masters.all)
            strategies: Sequence[Strategy] = (
                RedlockStrategy(
                    lock,
                    database,
                    slice_seconds=scenario.slice_seconds,
                    limits=limits,
                    room=room,
                    observer=observed,
                    combiner=self.combiner,
                ),
                RowLockStrategy(database, limits=limits, room=room, observer=observed),
                CounterStrategy(self.counters, database, database, limits=limits, room=room, observer=observed),
            )
            self._claims = StrategyByCoupon(
                {each.name: each for each in strategies},
                database,
                database.look,
                timeout_seconds=CLAIM_TIMEOUT_SECONDS,
            )
            self._ready.set()
            await self._stop.wait()
            asked_at = self._loop.now
            await self._claims.drain()
            self.drained_in = self._loop.now - asked_at
            self.left_waiting = room.count

    async def ready(self) -> None:
        await self._ready.wait()

    def stop(self) -> None:
        self.is_stopping = True
        self._stop.set()

    async def run_client(self, client: ClientPlan) -> None:
        """The client's claims, one after the other."""
        for plan in client.claims:
            await asyncio.sleep(plan.after)
            if plan.hang_up is None:
                await self._claim_and_cancel(plan)
                continue
            request = asyncio.create_task(self.claim(plan))
            _, unanswered = await asyncio.wait([request], timeout=plan.hang_up)
            if unanswered:
                request.cancel()
                await asyncio.wait([request])

    async def _claim_and_cancel(self, plan: ClaimPlan) -> None:
        record = await self.claim(plan)
        if plan.cancel is not None and isinstance(record.answer, Claimed):
            await asyncio.sleep(plan.cancel)
            with suppress(ClaimsvcError):
                await self._database.end_claim(record.answer.claim)

    async def claim(self, plan: ClaimPlan) -> Record:
        """Make one claim and record how it went."""
        assert self._claims is not None
        coupon = self._scenario.coupons[plan.coupon]
        record = Record(self.process, coupon, plan.user, self._loop.now, plan.hang_up is not None)
        self.records.append(record)
        try:
            record.answer = await self._claims.claim(coupon.name, plan.user)
        except ClaimsvcError as error:
            record.answer = error
        except asyncio.CancelledError as error:
            record.answer = error
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer, and judged as such
            record.answer = error
        record.ended = self._loop.now
        return record

    def does(self, moment: Moment) -> bool:
        """Whether the instance does this just now."""
        if self.combiner is None:
            return False
        if moment is Moment.HANDING:
            return bool(self.combiner._expected)
        if moment is Moment.RECEIVING:
            return any(self.combiner._desks.values())
        return self._database.deciding[self.process] > 0

    def cancel_a_leader(self, which: int) -> bool:
        """Cancel one of the tasks in which queues are led; whether there was one."""
        leaders = [task for task in self._loop.tasks_of(self.process) if _leads(task)]
        if leaders:
            leaders[which % len(leaders)].cancel()
        return bool(leaders)


_LEADING = {"lead", "wait_and_lead", "_round", "_wait_and_lead"}


def _leads(task: "asyncio.Task[object]") -> bool:
    return getattr(getattr(task.get_coro(), "cr_code", None), "co_name", None) in _LEADING
