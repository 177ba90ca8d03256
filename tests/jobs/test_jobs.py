"""What goes on in the background: who does it, for how long, and what a failure keeps from being done."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest
from structlog.testing import capture_logs

from claimsvc.domain import PurgeReport
from claimsvc.errors import InvariantViolatedError, LockBusyError, UnavailableError
from claimsvc.jobs import event_loop_watched, purge, repeated, run_exclusively, sweep
from claimsvc.ports import Lease
from tests.support.waiting import until


class Told:
    """`ports.JobObserver`."""

    def __init__(self) -> None:
        self.ended: list[tuple[str, str, int]] = []

    def job_ended(self, job: str, result: str, seconds: float, items: int) -> None:
        assert seconds >= 0
        self.ended.append((job, result, items))


@dataclass
class FakeLease:
    """A lease that is over after it was asked so many times."""

    coupon_names: Sequence[str]
    asked_before_its_end: int
    handed_over: Sequence[str] = ()

    def seconds_left(self) -> float:
        self.asked_before_its_end -= 1
        return 20.0 if self.asked_before_its_end >= 0 else 0.0

    def hand_to(self, instance: str) -> None: ...

    async def is_wanted(self) -> bool:
        return False


@dataclass
class FakeLock:
    """`ports.Lock`, whose leases last as long as they are made to. After `free` times it is another's."""

    free: int = 1_000_000
    asked_before_its_end: int = 1_000_000
    taken: list[str] = field(default_factory=list)
    held_now: int = 0

    @asynccontextmanager
    async def hold_free(self, coupon_names: Sequence[str]) -> AsyncIterator[Lease]:
        is_free = len(self.taken) < self.free
        self.taken += coupon_names if is_free else ()
        self.held_now += 1
        try:
            yield FakeLease(coupon_names if is_free else (), self.asked_before_its_end)
        finally:
            self.held_now -= 1

    @asynccontextmanager
    async def hold(self, coupon_name: str, *, was_busy: bool = False) -> AsyncIterator[Lease]:
        async with self.hold_free([coupon_name]) as lease:
            if not lease.coupon_names:
                raise LockBusyError("it is another's")
            yield lease


async def three(lock: FakeLock | None = None) -> AsyncGenerator[int, None]:
    for items in (5, 5, 2):
        assert lock is None or lock.held_now == 1
        yield items


async def test_chunks_are_done_under_the_lock_until_there_are_none() -> None:
    lock, told = FakeLock(), Told()
    assert await run_exclusively(lock, "sweep", three(lock), told)
    assert (lock.taken, lock.held_now, told.ended) == (["job:sweep"], 0, [("sweep", "done", 12)])


async def test_a_job_that_another_instance_is_at_is_not_begun() -> None:
    told, begun = Told(), False

    async def chunks() -> AsyncGenerator[int, None]:
        nonlocal begun
        begun = True
        yield 1

    assert not await run_exclusively(FakeLock(free=0), "sweep", chunks(), told)
    assert (begun, told.ended) == (False, [("sweep", "elsewhere", 0)])


@pytest.mark.parametrize(("free", "ended"), [(1, ("sweep", "done", 12)), (0, ("sweep", "elsewhere", 0))])
async def test_whoever_waits_for_another_instance_and_waits_too_long_does_nothing(
    free: int, ended: tuple[str, str, int]
) -> None:
    lock, told = FakeLock(free=free), Told()
    assert await run_exclusively(lock, "sweep", three(lock), told, wait_for_lock=True) == bool(free)
    assert (told.ended, lock.held_now) == ([ended], 0)


async def test_a_lease_that_comes_to_its_end_is_taken_anew_between_two_chunks() -> None:
    # Asked once at its beginning, and once after the first chunk.
    lock, told = FakeLock(asked_before_its_end=1), Told()
    assert await run_exclusively(lock, "purge", three(lock), told)
    assert (lock.taken, told.ended) == (["job:purge"] * 4, [("purge", "done", 12)])


async def test_what_another_instance_takes_over_is_reported_as_far_as_it_came() -> None:
    told = Told()
    assert await run_exclusively(FakeLock(free=2, asked_before_its_end=1), "purge", three(), told)
    assert told.ended == [("purge", "done", 10)]


async def test_a_job_that_fails_says_how_far_it_came_and_gives_the_lock_back() -> None:
    lock, told = FakeLock(), Told()

    async def chunks() -> AsyncGenerator[int, None]:
        yield 5
        raise UnavailableError("gone", dependency="postgresql")

    with pytest.raises(UnavailableError):
        await run_exclusively(lock, "sweep", chunks(), told)
    assert (lock.held_now, told.ended) == (0, [("sweep", "failed", 5)])


async def test_a_job_that_is_cancelled_gives_the_lock_back_and_has_not_failed() -> None:
    lock, told, is_closed = FakeLock(), Told(), False

    async def chunks() -> AsyncGenerator[int, None]:
        nonlocal is_closed
        try:
            await asyncio.sleep(60)
            yield 1
        finally:
            is_closed = True

    task = asyncio.create_task(run_exclusively(lock, "sweep", chunks(), told))
    await until(lambda: lock.held_now, "it has begun")
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert (lock.held_now, is_closed, told.ended) == (0, True, [])


class OneBroken:
    """`ports.Maintenance` of three coupons, the first of which is broken."""

    def __init__(self) -> None:
        self.rows = {"a": 0, "b": 2, "c": 3}

    async def coupons_with_due_holds(self, *, after: str, limit: int) -> list[str]:
        return [name for name in self.rows if name > after][:2]

    async def settle_holds(self, coupon_name: str, *, limit: int) -> int:
        if coupon_name == "a":
            raise InvariantViolatedError("it does not add up")
        return self.rows[coupon_name]

    async def purge_answers(self, *, limit: int) -> int:
        return 0

    async def purge_fence(self, *, limit: int) -> int:
        return 0

    async def purge_tickets(self, *, limit: int) -> int:
        return 0

    async def purge_lists(self, *, limit: int) -> int:
        return 0

    async def ended_coupons(self, *, after: str, limit: int, for_days: int) -> list[str]:
        return await self.coupons_with_due_holds(after=after, limit=limit)

    async def purge_coupon(self, coupon_name: str, *, for_days: int, limit: int, actor: str) -> PurgeReport:
        return PurgeReport(claims=await self.settle_holds(coupon_name, limit=limit), coupons=1)

    async def count_purgeable(self) -> PurgeReport:
        return PurgeReport()

    async def count_coupon(self, coupon_name: str) -> PurgeReport:
        return PurgeReport()


class Counts:
    """`ports.Counters`, which cannot be reached for `c`."""

    def __init__(self) -> None:
        self.counts = {"b": 1, "c": 1}

    async def give_back(self, coupon_name: str, units: int) -> None:
        if coupon_name == "c":
            raise UnavailableError("gone", dependency="redis")
        self.counts[coupon_name] += units

    async def count(self, coupon_name: str) -> int | None:
        return self.counts[coupon_name]

    async def forget(self, coupon_name: str, count: int) -> None:
        if coupon_name == "c":
            raise UnavailableError("gone", dependency="redis")
        assert self.counts.pop(coupon_name) == count

    async def take(self, coupon_name: str, units: int) -> int | None:
        raise AssertionError("no job takes units")

    async def learn(self, coupon_name: str, remaining_amount: int) -> None:
        raise AssertionError("no job learns counts")


async def items_of(chunks: AsyncGenerator[int, None]) -> list[int]:
    """The items of each chunk of a job, which fails in the end."""
    items: list[int] = []
    with pytest.raises(InvariantViolatedError):
        async for done in chunks:
            items.append(done)  # noqa: PERF401 - what came before the failure is wanted
    return items


async def test_a_coupon_that_cannot_be_swept_keeps_no_other_from_its_turn() -> None:
    counters = Counts()
    assert await items_of(sweep(OneBroken(), counters)) == [2, 3]
    assert counters.counts == {"b": 3, "c": 1}


class ManyHolds(OneBroken):
    """`ports.Maintenance` of two coupons whose holds are more than a chunk."""

    def __init__(self) -> None:
        self.rows = {"b": 7, "d": 6}

    async def settle_holds(self, coupon_name: str, *, limit: int) -> int:
        units = min(limit, self.rows[coupon_name])
        self.rows[coupon_name] -= units
        return units


async def test_holds_of_a_coupon_that_are_many_end_in_several_chunks() -> None:
    maintenance = ManyHolds()
    counters = Counts()
    counters.counts["d"] = 1
    assert [done async for done in sweep(maintenance, counters, chunk=3)] == [3, 3, 1, 3, 3, 0]
    assert counters.counts == {"b": 8, "c": 1, "d": 7}


async def test_a_coupon_that_cannot_be_purged_keeps_no_other_from_its_turn() -> None:
    counters, report = Counts(), PurgeReport()
    assert await items_of(purge(OneBroken(), counters, report, after_days=1, actor="job:purge")) == [3, 4]
    assert (report, counters.counts) == (PurgeReport(coupons=2, claims=5), {"c": 1})


async def test_coupons_stay_for_ever_unless_it_is_said_for_how_long() -> None:
    chunks = purge(OneBroken(), Counts(), PurgeReport(), after_days=0, actor="job:purge")
    assert [done async for done in chunks] == []


async def test_an_outage_is_one_line_of_the_log_until_it_is_over() -> None:
    passes = 0

    async def run_once() -> None:
        nonlocal passes
        passes += 1
        if passes not in {3, 6}:
            raise UnavailableError("gone", dependency="redis")

    with capture_logs() as lines:
        async with repeated(run_once, every_seconds=0.001, name="sweep"):
            await until(lambda: passes >= 5, "it was tried often")
    outages = [line for line in lines if line["event"] == "job could not run now"]
    assert len(outages) == 2 + (passes > 6)
    assert all(line["job"] == "sweep" for line in outages)


async def test_a_stalled_event_loop_is_told_with_how_late_it_was() -> None:
    lags: list[float] = []
    async with event_loop_watched(lags.append):
        began = time.monotonic()
        await asyncio.sleep(0)  # it begins to sleep
        time.sleep(0.4)  # noqa: ASYNC251 - this is the stall
        while not lags:
            await asyncio.sleep(0.01)
    assert 0.25 <= lags[0] <= time.monotonic() - began
