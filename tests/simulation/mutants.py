"""The service with one thing broken at a time, to see that the simulation notices.

Each replaces one method by one with a defect that somebody could write.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

from claimsvc.claiming.batching import Batch, Batcher, CouponQueue, queues
from claimsvc.claiming.strategies import CounterStrategy
from claimsvc.domain import SoldOut
from claimsvc.redis.lock.pottery_lock import PotteryAcquisition
from claimsvc.redis.lock.redlock import RedlockLease, Redlocks
from claimsvc.redis.lock.wait_queue import HandOver, Wake
from tests.simulation.combining_mutants import (
    COMBINING_MUTANTS,
    the_fence_is_put_up_without_the_rows_lock,
    with_copies_and_purges,
)
from tests.simulation.scenario import Kind, Scenario, may_strand_locks

Mutant = Callable[[], AbstractContextManager[object]]


def a_lock_is_given_back_by_whoever_asks() -> AbstractContextManager[object]:
    release = PotteryAcquisition._release_script

    async def release_anybodys(self: Any, *, keys: Sequence[str], args: Sequence[str], client: Any) -> bool:
        token = await client.get(keys[0])
        return token is not None and await release(self, keys=keys, args=[token.decode()], client=client)

    return patch.object(PotteryAcquisition, "_release_script", release_anybodys)


def sold_out_is_answered_by_the_counter_alone() -> AbstractContextManager[object]:
    async def refuse(self: Any, attempts: Sequence[object]) -> list[SoldOut]:
        return [SoldOut()] * len(attempts)

    return patch.object(CounterStrategy, "_refuse", refuse)


def a_queue_that_has_filled_again_is_forgotten() -> AbstractContextManager[object]:
    give_up = Batcher._give_up_lead

    def give_up_for_good(self: Any, queue: CouponQueue) -> None:
        if queue:
            queue.waits_for_lock = False
        else:
            give_up(self, queue)

    return patch.object(Batcher, "_give_up_lead", give_up_for_good)


def a_hint_uses_up_a_retry() -> AbstractContextManager[object]:
    wait = HandOver.wait

    async def wait_in_vain(self: Any, *arguments: Any, **options: Any) -> Wake:
        wake = await wait(self, *arguments, **options)
        return Wake.NONE if wake is Wake.OUR_TURN else wake

    return patch.object(HandOver, "wait", wait_in_vain)


def a_leaders_cancellation_reaches_the_claims() -> AbstractContextManager[object]:
    def fail(waiting: Any, error: BaseException) -> None:
        if not waiting.answer.done():
            waiting.answer.set_exception(error)

    return patch.object(queues, "_fail", fail)


def a_batch_that_fails_is_not_answered() -> AbstractContextManager[object]:
    return patch.object(Batch, "fail", lambda self, error: None)


def answers_go_to_the_wrong_claims() -> AbstractContextManager[object]:
    answer = Batch.answer
    return patch.object(Batch, "answer", lambda self, decisions: answer(self, list(reversed(decisions))))


def an_acquisition_that_was_cancelled_is_not_undone() -> AbstractContextManager[object]:
    async def leave(self: Any, taking: "asyncio.Future[object]", acquisition: object) -> None:
        await taking

    return patch.object(Redlocks, "_undo", leave)


def draining_does_not_wait() -> AbstractContextManager[object]:
    async def refuse_only(self: Any) -> None:
        self._draining = True

    return patch.object(Batcher, "drain", refuse_only)


def nobody_is_woken() -> AbstractContextManager[object]:
    return patch.object(HandOver, "_hint", lambda self, coupon_name: None)


def the_lock_is_kept_while_there_is_work() -> AbstractContextManager[object]:
    async def never(self: object) -> bool:
        return False

    return patch.object(RedlockLease, "is_wanted", never)


def whoever_waits_is_refused_with_the_oldest() -> AbstractContextManager[object]:
    refuse = CouponQueue.refuse
    return patch.object(CouponQueue, "refuse", lambda self, error, *, arrived_before=0.0: refuse(self, error))


def _anywhere(scenario: Scenario) -> bool:
    return True


def _where_instances_wait_in_line(scenario: Scenario) -> bool:
    return len(scenario.old_instances) == scenario.instances


def _where_a_leader_is_cancelled(scenario: Scenario) -> bool:
    return not may_strand_locks(scenario) and any(fault.kind is Kind.CANCEL_LEADER for fault in scenario.faults)


def _where_a_leader_is_cancelled_in_line(scenario: Scenario) -> bool:
    return _where_a_leader_is_cancelled(scenario) and _where_instances_wait_in_line(scenario)


def _where_an_instance_is_told_to_stop(scenario: Scenario) -> bool:
    return any(fault.kind is Kind.DRAIN for fault in scenario.faults)


def _where_claims_keep_coming(scenario: Scenario) -> bool:
    return not scenario.faults and scenario.claims > 60 * scenario.instances and scenario.transaction_seconds > 0.002


# Each defect, and the scenarios in which it can show: the others need not be run to find it.
MUTANTS: dict[Mutant, Callable[[Scenario], bool]] = {
    a_lock_is_given_back_by_whoever_asks: _anywhere,
    sold_out_is_answered_by_the_counter_alone: _anywhere,
    a_queue_that_has_filled_again_is_forgotten: _anywhere,
    a_hint_uses_up_a_retry: _where_instances_wait_in_line,
    a_leaders_cancellation_reaches_the_claims: _where_a_leader_is_cancelled,
    a_batch_that_fails_is_not_answered: _anywhere,
    answers_go_to_the_wrong_claims: _anywhere,
    an_acquisition_that_was_cancelled_is_not_undone: _where_a_leader_is_cancelled_in_line,
    draining_does_not_wait: _where_an_instance_is_told_to_stop,
    nobody_is_woken: _where_instances_wait_in_line,
    the_lock_is_kept_while_there_is_work: _where_claims_keep_coming,
    whoever_waits_is_refused_with_the_oldest: _anywhere,
    **COMBINING_MUTANTS,
}

# What must be added to those scenarios, where chance brings it too seldom.
MADE_WORSE: dict[Mutant, Callable[[Scenario], Scenario]] = {
    the_fence_is_put_up_without_the_rows_lock: with_copies_and_purges
}
