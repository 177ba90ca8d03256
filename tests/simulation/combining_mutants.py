"""The service with one thing broken at a time in combining; see `mutants`.

The fence is SQL, which does not run here: its defects are those of the simulated database.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from functools import partial
from typing import Any
from unittest.mock import patch

from claimsvc.claiming.batching import CouponQueue
from claimsvc.claiming.combining import Combiner
from claimsvc.claiming.combining.messages import Answered, read
from claimsvc.claiming.strategies import RedlockStrategy, redlock
from claimsvc.domain import Attempt
from claimsvc.errors import UnavailableError
from claimsvc.ports import HandedBatch
from claimsvc.redis.lock.redlock import RedlockLease
from tests.simulation.database import Fenced, SimulatedDatabase, names_of
from tests.simulation.network import Answer
from tests.simulation.scenario import Fault, Kind, Scenario


def there_is_no_fence() -> AbstractContextManager[object]:
    return patch.object(SimulatedDatabase, "passes_fence", lambda self, batch: True)


def copies_are_recognized_by_their_claims_alone() -> AbstractContextManager[object]:
    """No fence; and who is decided twice is not counted, so that only what users are told can show it."""
    decide = SimulatedDatabase.decide

    def decide_uncounted(self: SimulatedDatabase, *arguments: Any) -> Fenced | None:
        decided = decide(self, *arguments)
        self.decided.clear()
        return decided

    patched = ExitStack()
    patched.enter_context(there_is_no_fence())
    patched.enter_context(patch.object(SimulatedDatabase, "decide", decide_uncounted))
    return patched


def the_fence_is_put_up_before_the_transaction() -> AbstractContextManager[object]:
    async def decide_fenced(
        self: SimulatedDatabase, attempts: Sequence[Attempt], batches: Sequence[HandedBatch]
    ) -> Fenced:
        names = names_of(attempts, batches)
        ours = await self._ask(self.writing(names, partial(self.fence, batches)))
        return await self.committed(attempts, batches, partial(self.decide, attempts, batches, ours))

    return patch.object(SimulatedDatabase, "decide_fenced", decide_fenced)


def the_fence_is_put_up_after_the_transaction() -> AbstractContextManager[object]:
    async def decide_fenced(
        self: SimulatedDatabase, attempts: Sequence[Attempt], batches: Sequence[HandedBatch]
    ) -> Fenced:
        def decide() -> Fenced | None:
            return self.decide(attempts, batches, {batch.id for batch in batches if self.passes_fence(batch)})

        decided = await self.committed(attempts, batches, decide)
        await self._ask(self.writing(names_of(attempts, batches), partial(self.fence, batches)))
        return decided

    return patch.object(SimulatedDatabase, "decide_fenced", decide_fenced)


def the_fence_is_put_up_without_the_rows_lock() -> AbstractContextManager[object]:
    """What it is compared with is read at the beginning of the statement, and it is written at the end."""

    def fencing(self: SimulatedDatabase, names: set[str], batches: Sequence[HandedBatch], decide: Any) -> Any:
        def commit(ours: set[str]) -> object:
            fences = {(each.coupon_name, each.id) for each in batches if each.id in ours}
            if fences & self.fenced:
                return UnavailableError("two transactions wait for each other", dependency="postgresql")
            self.fenced |= fences
            return decide(ours)

        def arrive(answer: Answer) -> None:
            seen = {name: self.fenced_after.get(name, "") for name in names}

            def insert() -> None:
                ours = {
                    each.id
                    for each in batches
                    if each.id > seen[each.coupon_name] and (each.coupon_name, each.id) not in self.fenced
                }
                self.writing(names, partial(commit, ours))(answer)

            self.after(self.duration(), insert)

        return arrive

    async def decide_fenced(
        self: SimulatedDatabase, attempts: Sequence[Attempt], batches: Sequence[HandedBatch]
    ) -> Fenced:
        names = names_of(attempts, batches)
        decided = await self._ask(fencing(self, names, batches, partial(self.decide, attempts, batches)))
        return await self.without_refused(attempts, batches, decided)

    return patch.object(SimulatedDatabase, "decide_fenced", decide_fenced)


def the_fence_forgets_and_does_not_refuse() -> AbstractContextManager[object]:
    def forget(self: SimulatedDatabase, name: str, until: str) -> None:
        self.fenced = {(of, id_) for of, id_ in self.fenced if of != name or id_ >= until}

    return patch.object(SimulatedDatabase, "forget_batches", forget)


def a_batch_is_taken_back_without_asking() -> AbstractContextManager[object]:
    async def take_back(self: Any, batch: HandedBatch, combiner: Combiner) -> None:
        return None

    return patch.object(RedlockStrategy, "_take_back", take_back)


def an_origin_reads_instead_of_withholding() -> AbstractContextManager[object]:
    """It tells "sold-out" of a batch that may be sold later."""

    async def take_back(self: Any, batch: HandedBatch, combiner: Combiner) -> object:
        return await self._admission.recall(batch)

    return patch.object(RedlockStrategy, "_take_back", take_back)


def declined_is_taken_for_never_decided() -> AbstractContextManager[object]:
    arrived, take_back = Combiner.arrived, RedlockStrategy._take_back
    declined: set[str] = set()

    def note(self: Combiner, sender: str, message: bytes, answer: Any) -> None:
        received = read(message)
        if isinstance(received, Answered) and received.decisions is None:
            declined.add(received.batch_id)
        arrived(self, sender, message, answer)

    async def believe(self: RedlockStrategy, batch: HandedBatch, combiner: Combiner) -> object:
        return None if batch.id in declined else await take_back(self, batch, combiner)

    patched = ExitStack()
    patched.enter_context(patch.object(Combiner, "arrived", note))
    patched.enter_context(patch.object(RedlockStrategy, "_take_back", believe))
    return patched


def what_is_put_back_is_forgotten() -> AbstractContextManager[object]:
    return patch.object(CouponQueue, "put_back", lambda self, batch: None)


def decisions_of_a_batch_go_to_the_wrong_claims() -> AbstractContextManager[object]:
    each = redlock._each
    return patch.object(redlock, "_each", lambda decisions, attempts: list(reversed(each(decisions, attempts))))


def batches_are_handed_over_whatever_time_is_left() -> AbstractContextManager[object]:
    return patch.object(CouponQueue, "longest_wait", lambda self: 0.0)


def a_holder_does_not_notice_that_its_lock_is_over() -> AbstractContextManager[object]:
    """Not among `COMBINING_MUTANTS`: the fence makes it harmless."""
    return patch.object(RedlockLease, "seconds_left", lambda self: 1.0)


def _where_instances_combine(scenario: Scenario) -> bool:
    return len(scenario.clients) >= 2 and scenario.instances - len(scenario.old_instances) >= 2


def _where_messages_are_hurt(scenario: Scenario) -> bool:
    return _where_instances_combine(scenario) and scenario.copies


def _where_few_combine(scenario: Scenario) -> bool:
    return _where_instances_combine(scenario) and scenario.claims <= 120


def _where_the_fence_is_purged(scenario: Scenario) -> bool:
    kinds = [fault.kind for fault in scenario.faults if fault.seconds > 0.1]
    copies_are_purged = kinds.count(Kind.DOUBLED_MESSAGES) == 3 and Kind.FENCE_PURGED in kinds
    return copies_are_purged and _where_few_combine(scenario)


COMBINING_MUTANTS: dict[Callable[[], AbstractContextManager[object]], Callable[[Scenario], bool]] = {
    there_is_no_fence: _where_messages_are_hurt,
    copies_are_recognized_by_their_claims_alone: _where_messages_are_hurt,
    the_fence_is_put_up_before_the_transaction: _where_messages_are_hurt,
    the_fence_is_put_up_after_the_transaction: _where_messages_are_hurt,
    the_fence_is_put_up_without_the_rows_lock: _where_few_combine,
    the_fence_forgets_and_does_not_refuse: _where_the_fence_is_purged,
    a_batch_is_taken_back_without_asking: _where_messages_are_hurt,
    an_origin_reads_instead_of_withholding: _where_messages_are_hurt,
    declined_is_taken_for_never_decided: _where_messages_are_hurt,
    what_is_put_back_is_forgotten: _where_instances_combine,
    decisions_of_a_batch_go_to_the_wrong_claims: _where_instances_combine,
}


def with_copies_and_purges(scenario: Scenario) -> Scenario:
    """The scenario with every message doubled, and a purge every few milliseconds: one must come within a statement."""
    copies = [Fault(Kind.DOUBLED_MESSAGES, 0.0, 3.0, which) for which in range(3)]
    purges = [Fault(Kind.FENCE_PURGED, round(0.02 + 0.004 * number, 3), 0.01) for number in range(100)]
    return replace(scenario, faults=(*copies, *purges), ttl_seconds=0.3)
