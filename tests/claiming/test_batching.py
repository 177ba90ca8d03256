"""Batches by themselves, with a leader that does what the test says."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import pytest

from claimsvc.claiming.batching import Batcher, BatchLimits, CouponQueue, WaitingRoom, decide_next, lock_busy
from claimsvc.claiming.batching import batcher as batcher_module
from claimsvc.domain import Attempt, ClaimOutcome, SoldOut
from claimsvc.errors import LockBusyError, UnavailableError
from claimsvc.ports import Decision
from tests.support.observed import Observed

Work = Callable[[CouponQueue], Awaitable[None]]


class ScriptedLeader:
    """Leads each queue by `work`; remembers which queues it was given together."""

    def __init__(self, work: Work, *, at_once: bool = True) -> None:
        self.rounds: list[list[str]] = []
        self._work = work
        self._at_once = at_once

    async def lead(self, queues: Sequence[CouponQueue]) -> Sequence[CouponQueue]:
        self.rounds.append([queue.coupon_name for queue in queues])
        if not self._at_once:
            return queues
        for queue in queues:
            await self._work(queue)
        return ()

    async def wait_and_lead(self, queue: CouponQueue) -> None:
        await self._work(queue)


def batcher_of(leader: ScriptedLeader, **limits: float) -> Batcher:
    return Batcher(
        leader,
        BatchLimits(
            batch_size=int(limits.get("batch_size", 10)),
            lock_timeout_seconds=limits.get("lock_timeout_seconds", 10.0),
            queue_timeout_seconds=limits.get("queue_timeout_seconds", 10.0),
            claim_timeout_seconds=limits.get("claim_timeout_seconds", 10.0),
            concurrent_rounds=int(limits.get("concurrent_rounds", 1)),
        ),
        WaitingRoom(int(limits.get("waiting_limit", 100)), Observed()),
        Observed(),
    )


async def answer_all(queue: CouponQueue) -> None:
    while queue:
        batch = queue.take()
        batch.answer([SoldOut()] * len(batch.attempts))


async def submit_all(batcher: Batcher, coupon_name: str, users: Sequence[str]) -> list[ClaimOutcome]:
    return await asyncio.gather(*(batcher.submit(coupon_name, user) for user in users))


async def test_claims_are_taken_in_the_order_of_their_arrival() -> None:
    taken: list[list[str]] = []

    async def note(queue: CouponQueue) -> None:
        while queue:
            batch = queue.take()
            taken.append([attempt.user_id for attempt in batch.attempts])
            ids = [attempt.claim_id for attempt in batch.attempts]
            assert ids == sorted(ids)
            batch.answer([SoldOut()] * len(batch.attempts))

    await submit_all(batcher_of(ScriptedLeader(note), batch_size=3), "spring", list("abcdefg"))
    assert taken == [["a", "b", "c"], ["d", "e", "f"], ["g"]]


async def test_coupons_that_become_ready_in_one_turn_are_led_together() -> None:
    leader = ScriptedLeader(answer_all)
    batcher = batcher_of(leader)
    await asyncio.gather(*(batcher.submit(name, "ada") for name in ("a", "b", "a", "c")))
    assert leader.rounds == [["a", "b", "c"]]


async def test_coupons_that_become_ready_while_all_rounds_are_taken_share_the_next() -> None:
    leading = asyncio.Event()
    may_go_on = asyncio.Event()

    async def wait_then_answer(queue: CouponQueue) -> None:
        leading.set()
        await may_go_on.wait()
        await answer_all(queue)

    leader = ScriptedLeader(wait_then_answer)
    batcher = batcher_of(leader)
    first = asyncio.ensure_future(batcher.submit("a", "ada"))
    await leading.wait()
    later = []
    for name in ("b", "c"):
        later.append(asyncio.ensure_future(batcher.submit(name, "ada")))
        await asyncio.sleep(0)
    may_go_on.set()
    await asyncio.gather(first, *later)
    assert leader.rounds == [["a"], ["b", "c"]]


def _names(start: int, end: int) -> list[str]:
    return [f"coupon-{number}" for number in range(start, end)]


async def _busy_batcher(leader: ScriptedLeader, **limits: float) -> Batcher:
    """A batcher that has just had a round of ten coupons."""
    batcher = batcher_of(leader, **limits)
    await asyncio.gather(*(batcher.submit(name, "ada") for name in _names(0, 10)))
    assert leader.rounds == [_names(0, 10)]
    leader.rounds.clear()
    return batcher


async def test_a_busy_round_waits_a_moment_until_almost_all_of_the_usual_coupons_are_ready(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batcher_module, "_LINGER_SECONDS", 3600.0)
    leader = ScriptedLeader(answer_all)
    batcher = await _busy_batcher(leader)
    claims = []
    for name in _names(0, 10):
        claims.append(batcher.submit(name, "ben"))
        if len(claims) < 9:  # then there are enough, and what comes in the same turn takes part
            await asyncio.sleep(0.001)
            assert not leader.rounds
    await asyncio.wait_for(asyncio.gather(*claims), 10)
    assert leader.rounds == [_names(0, 10)]


@pytest.mark.parametrize("round_seconds", [0.0, 3600.0])
async def test_a_round_that_does_not_fill_begins_all_the_same(round_seconds: float) -> None:
    leader = ScriptedLeader(answer_all)
    batcher = await _busy_batcher(leader)
    batcher._last_round_seconds = round_seconds
    await asyncio.wait_for(batcher.submit("spring", "ben"), 10)
    assert leader.rounds == [["spring"]]


async def test_a_coupon_that_stays_alone_soon_waits_for_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    leader = ScriptedLeader(answer_all)
    batcher = await _busy_batcher(leader)
    for _ in range(2):
        await asyncio.wait_for(batcher.submit("spring", "ben"), 10)
    monkeypatch.setattr(batcher_module, "_LINGER_SECONDS", 3600.0)
    monkeypatch.setattr(batcher_module, "_LONGEST_LINGER_SECONDS", 3600.0)
    await asyncio.wait_for(batcher.submit("spring", "ben"), 10)
    assert leader.rounds == [["spring"]] * 3


@pytest.mark.parametrize(("seconds", "coupons"), [(3600.0, 64), (0.01, 3)])
async def test_beside_a_busy_round_another_begins_if_it_is_large_or_the_first_takes_long(
    monkeypatch: pytest.MonkeyPatch, seconds: float, coupons: int
) -> None:
    monkeypatch.setattr(batcher_module, "_LINGER_BESIDE_SECONDS", seconds)
    is_stuck, may_go_on = False, asyncio.Event()

    async def get_stuck_once(queue: CouponQueue) -> None:
        nonlocal is_stuck
        if queue.coupon_name == "stuck" and not is_stuck:
            is_stuck = True
            await may_go_on.wait()
        await answer_all(queue)

    leader = ScriptedLeader(get_stuck_once)
    batcher = await _busy_batcher(leader, concurrent_rounds=2, waiting_limit=1000)
    stuck = batcher.submit("stuck", "ben")
    async with asyncio.timeout(10):
        while not is_stuck:
            await asyncio.sleep(0.001)
        await asyncio.gather(*(batcher.submit(name, "ben") for name in _names(0, coupons)))
        may_go_on.set()
        await stuck
        await batcher.drain()
    assert leader.rounds == [["stuck"], _names(0, coupons)]


async def test_what_waits_for_a_busy_round_begins_when_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batcher_module, "_LINGER_BESIDE_SECONDS", 3600.0)
    leading, may_go_on = asyncio.Event(), asyncio.Event()

    async def wait_then_answer(queue: CouponQueue) -> None:
        leading.set()
        await may_go_on.wait()
        await answer_all(queue)

    leader = ScriptedLeader(wait_then_answer)
    may_go_on.set()
    batcher = await _busy_batcher(leader, concurrent_rounds=2)
    leading.clear()
    may_go_on.clear()
    first = [batcher.submit(name, "ben") for name in _names(0, 10)]
    await leading.wait()
    later = [batcher.submit(name, "ben") for name in _names(10, 13)]
    await asyncio.sleep(0.01)
    assert leader.rounds == [_names(0, 10)]
    may_go_on.set()
    await asyncio.wait_for(asyncio.gather(*first, *later), 10)
    assert leader.rounds == [_names(0, 10), _names(10, 13)]


async def test_a_claim_that_comes_while_its_coupon_is_led_is_decided_too() -> None:
    late: list[asyncio.Future[ClaimOutcome]] = []

    async def answer_and_let_one_in(queue: CouponQueue) -> None:
        await answer_all(queue)
        if not late:
            late.append(asyncio.ensure_future(batcher.submit("spring", "late")))
            await asyncio.sleep(0)

    batcher = batcher_of(ScriptedLeader(answer_and_let_one_in))
    await batcher.submit("spring", "ada")
    assert await late[0] == SoldOut()


async def test_who_was_cancelled_while_waiting_is_passed_over() -> None:
    may_go_on = asyncio.Event()
    taken: list[str] = []

    async def note(queue: CouponQueue) -> None:
        await may_go_on.wait()
        batch = queue.take()
        taken.extend(attempt.user_id for attempt in batch.attempts)
        batch.answer([SoldOut()] * len(batch.attempts))

    batcher = batcher_of(ScriptedLeader(note))
    claims = [asyncio.ensure_future(batcher.submit("spring", user)) for user in "abc"]
    await asyncio.sleep(0)
    claims[1].cancel()
    await asyncio.sleep(0)
    may_go_on.set()
    await asyncio.gather(*claims, return_exceptions=True)
    assert taken == ["a", "c"]


@pytest.mark.parametrize("at_once", [True, False])
async def test_claims_that_a_failing_leader_leaves_behind_get_its_error(at_once: bool) -> None:
    async def fail(queue: CouponQueue) -> None:
        raise UnavailableError("gone", dependency="redis")

    batcher = batcher_of(ScriptedLeader(fail, at_once=at_once))
    outcomes = await asyncio.gather(*(batcher.submit("spring", user) for user in "abc"), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [UnavailableError] * 3


async def test_one_more_than_may_wait_is_refused_and_the_others_are_not() -> None:
    batcher = batcher_of(ScriptedLeader(answer_all), waiting_limit=2)
    outcomes = await asyncio.gather(*(batcher.submit("spring", user) for user in "abc"), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [SoldOut, SoldOut, UnavailableError]


@pytest.mark.parametrize(("waits_for_lock", "error"), [(True, LockBusyError), (False, UnavailableError)])
async def test_a_claim_waits_no_longer_than_it_may(waits_for_lock: bool, error: type[Exception]) -> None:
    ended = asyncio.Event()

    async def hang(queue: CouponQueue) -> None:
        queue.waits_for_lock = waits_for_lock
        await ended.wait()

    batcher = batcher_of(ScriptedLeader(hang), lock_timeout_seconds=0.05, queue_timeout_seconds=0.05)
    with pytest.raises(error):
        await batcher.submit("spring", "ada")
    ended.set()
    await batcher.drain()


async def test_a_claim_that_is_being_decided_is_waited_for_no_longer_than_its_limit_and_decided_all_the_same() -> None:
    may_decide = asyncio.Event()
    decided: list[str] = []

    async def admit(attempts: Sequence[Attempt]) -> list[Decision]:
        await may_decide.wait()
        decided.extend(attempt.user_id for attempt in attempts)
        return [SoldOut()] * len(attempts)

    async def lead(queue: CouponQueue) -> None:
        while await decide_next([queue], admit):
            pass

    batcher = batcher_of(ScriptedLeader(lead), claim_timeout_seconds=1.0)
    started = time.monotonic()
    first = asyncio.ensure_future(batcher.submit("spring", "ada"))
    await asyncio.sleep(0.6)  # so long after the first one has ended as well, its own limit is still to come
    later = asyncio.ensure_future(batcher.submit("spring", "ben"))
    with pytest.raises(UnavailableError, match="may still succeed"):
        await first
    assert 1.0 <= time.monotonic() - started < 5
    assert not later.done()
    may_decide.set()
    assert await later == SoldOut()
    assert decided == ["ada", "ben"]


async def test_only_those_whose_time_is_up_are_refused() -> None:
    arrived = asyncio.Event()

    async def give_up_on_the_first(queue: CouponQueue) -> None:
        if not arrived.is_set():
            gave_up_at = time.monotonic()
            late.append(asyncio.ensure_future(batcher.submit("spring", "late")))
            await asyncio.sleep(0)
            arrived.set()
            queue.refuse(lock_busy(), arrived_before=gave_up_at)
        else:
            await answer_all(queue)

    late: list[asyncio.Future[ClaimOutcome]] = []
    batcher = batcher_of(ScriptedLeader(give_up_on_the_first))
    with pytest.raises(LockBusyError):
        await batcher.submit("spring", "ada")
    assert await late[0] == SoldOut()


async def test_draining_waits_for_every_answer() -> None:
    batcher = batcher_of(ScriptedLeader(answer_all))
    claims = [asyncio.ensure_future(batcher.submit("spring", user)) for user in "abc"]
    await asyncio.sleep(0)
    await batcher.drain()
    assert all(claim.done() for claim in claims)
    with pytest.raises(UnavailableError):
        await batcher.submit("spring", "late")


async def test_who_comes_after_a_failure_starts_afresh() -> None:
    """The leader is still giving its lock back when the next claim arrives: the error is not that claim's."""
    failures = [UnavailableError("gone", dependency="postgresql")]
    late: list[asyncio.Future[ClaimOutcome]] = []

    async def admit(attempts: Sequence[Attempt]) -> list[Decision]:
        if failures:
            raise failures.pop()
        return [SoldOut()] * len(attempts)

    async def lead(queue: CouponQueue) -> None:
        while await decide_next([queue], admit):
            pass
        if not late:
            late.append(asyncio.ensure_future(batcher.submit("spring", "late")))
            await asyncio.sleep(0)

    batcher = batcher_of(ScriptedLeader(lead))
    outcomes = await asyncio.gather(*(batcher.submit("spring", user) for user in "ab"), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [UnavailableError] * 2
    assert await late[0] == SoldOut()


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_leader_that_is_cancelled_before_its_first_step_leaves_no_queue_behind(at_once: bool) -> None:
    """Its coroutine never runs then, and none of its `finally`."""
    batcher = batcher_of(ScriptedLeader(answer_all, at_once=at_once))
    ours = asyncio.current_task()
    claim = asyncio.ensure_future(batcher.submit("spring", "ada"))
    while not (leaders := [task for task in asyncio.all_tasks() if task is not ours and not task.done()]):
        await asyncio.sleep(0)
    leaders[0].cancel()
    with pytest.raises(UnavailableError):
        await claim
    assert await batcher.submit("spring", "ben") == SoldOut()
