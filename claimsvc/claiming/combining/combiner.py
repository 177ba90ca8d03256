"""Combining: an instance that finds a lock held hands its batch to the holder, which decides it with its own."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from uuid_utils import uuid7

from claimsvc.claiming.combining.messages import Answered, Handed, answered, decisions_of, handed, read
from claimsvc.domain import Attempt
from claimsvc.ports import Decision, FencedAdmission, HandedBatch, Post, Sender

# How long a batch waits for its answer.
_WAIT_SECONDS = 1.0


class Desk:
    """The batches that were handed to this instance while it holds locks."""

    def __init__(self, combiner: "Combiner") -> None:
        self._combiner = combiner
        self._batches: dict[str, tuple[Sender, Handed]] = {}
        self.arrived = asyncio.Event()
        # The claims of the last batches taken.
        self.last = 0

    def __len__(self) -> int:
        return len(self._batches)

    @property
    def claims(self) -> int:
        return sum(len(each.batch.attempts) for _, each in self._batches.values())

    def add(self, sender: Sender, message: Handed) -> None:
        self._batches.setdefault(message.batch.id, (sender, message))
        self.arrived.set()

    def take(self) -> list[tuple[Sender, Handed]]:
        taken = list(self._batches.values())
        self._batches.clear()
        self.arrived.clear()
        return taken

    async def admit(self, admission: FencedAdmission, attempts: Sequence[Attempt]) -> list[Decision]:
        """Decide attempts of this instance together with the batches that lie here."""
        taken = self.take()
        self.last = sum(len(each.batch.attempts) for _, each in taken)
        answers: Sequence[list[Decision] | None] = [None] * len(taken)
        try:
            decisions, answers = await admission.admit_handed(attempts, [each.batch for _, each in taken])
            return decisions
        finally:
            for (sender, each), answer in zip(taken, answers, strict=True):
                self._combiner.answer(sender, each, answer)


class Combiner:
    """This instance's side of combining.

    Args:
        instance: its name.
        post: carries the messages.
    """

    def __init__(self, instance: str, post: Post) -> None:
        self._instance = instance
        self._post = post
        self._desks: dict[str, Desk] = {}
        self._expected: dict[str, asyncio.Future[Answered]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        post.deliver_to(self._deliver)

    @contextmanager
    def desk(self, coupon_names: Sequence[str]) -> Iterator[Desk]:
        """Receive batches of these coupons, whose locks this instance holds, until the context is left."""
        desk = Desk(self)
        self._desks |= dict.fromkeys(coupon_names, desk)
        try:
            yield desk
        finally:
            for name in coupon_names:
                self._desks.pop(name, None)
            for sender, message in desk.take():
                self.answer(sender, message, None)

    async def hand(self, coupon_name: str, attempts: Sequence[Attempt]) -> "Journey | None":
        """Hand a batch to the holder of the lock; None if there is none, or it takes no batches."""
        batch = HandedBatch(str(uuid7()), coupon_name, attempts)
        answer: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        self._expected[batch.id] = answer
        parcel = None
        try:
            parcel = await self._post.hand(coupon_name, handed(self._instance, batch))
            if parcel is None:
                return None
            journey = Journey(batch)
            try:
                async with asyncio.timeout(_WAIT_SECONDS):
                    found = await answer
            except TimeoutError:
                await parcel.withdraw()
            else:
                if found.letters:
                    journey.decisions = decisions_of(found, batch)
            return journey
        finally:
            del self._expected[batch.id]

    def answer(self, sender: Sender, message: Handed, decisions: Sequence[Decision] | None) -> None:
        """Answer a batch."""
        sending = self._post.answer(sender, message.sender, answered(message.batch.id, decisions))
        task = asyncio.ensure_future(sending)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _deliver(self, sender: Sender, message: bytes) -> None:
        received = read(message)
        if isinstance(received, Answered):
            if (expected := self._expected.get(received.batch_id)) is not None and not expected.done():
                expected.set_result(received)
        elif received is not None:
            desk = self._desks.get(received.batch.coupon_name)
            if desk is not None:
                desk.add(sender, received)
            else:
                self.answer(sender, received, None)


class Journey:
    """A batch that was handed over. `decisions` is None if its holder did not decide it, or may not have."""

    def __init__(self, batch: HandedBatch) -> None:
        self.batch = batch
        self.decisions: list[Decision] | None = None
