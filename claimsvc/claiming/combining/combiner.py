"""Both sides of combining: who finds a lock held hands its batch to the holder, which decides it with its own."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from uuid_utils import uuid7

from claimsvc.claiming.combining.messages import Answered, answered, handed, handed_batch, read
from claimsvc.domain import Attempt
from claimsvc.ports import (
    AllClaimed,
    Answer,
    BatchDecisions,
    CombineObserver,
    Decision,
    FencedAdmission,
    HandedBatch,
    HandOver,
    Post,
)

# How long a batch waits for the holder's answer. Then its origin decides for itself: half a second of the claim's 1.5
# is left for a holder that is slow, and the rest for waiting in line.
ANSWER_SECONDS = 0.5
# How often a lock that has just changed hands is asked for, and how much later each time. It is reserved for 50 ms.
_ASKS = 30
_ASK_AGAIN_SECONDS = 0.002
# An invitation to take a lock is good for as long as the lock is reserved.
_INVITATION_SECONDS = 0.05
# Most claims of others that are decided in one transaction. The rest is decided in the next.
_MOST_OF_OTHERS = 2000


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A batch that was handed to this instance."""

    sender: str
    batch: HandedBatch
    answer: Answer
    arrived_at: float


class Desk:
    """The batches that were handed to this instance while it holds locks.

    Attributes:
        last: number of claims in the batches that were taken last.
        was_used: whether batches of others were taken.
        usual: number of claims that are usually taken.
        on_arrival: called after each batch that arrives, if set.
    """

    def __init__(self, combiner: "Combiner") -> None:
        self._combiner = combiner
        self._waiting: dict[str, _Waiting] = {}
        self.claims = 0
        self.last = 0
        self.was_used = False
        self.usual = 0.0
        self.on_arrival: Callable[[], None] | None = None

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, sender: str, batch: HandedBatch, answer: Answer) -> None:
        """Keep a batch until it is taken. A copy of one that lies here is dropped."""
        if batch.id not in self._waiting:
            self._waiting[batch.id] = _Waiting(sender, batch, answer, time.monotonic())
            self.claims += batch.size
            if self.on_arrival is not None:
                self.on_arrival()

    async def admit(self, admission: FencedAdmission, attempts: Sequence[Attempt]) -> list[Decision]:
        """Decide attempts of this instance together with the batches that lie here, and answer the batches."""
        taken = self._take()
        answers: Sequence[BatchDecisions | None] = [None] * len(taken)
        try:
            decisions, answers = await admission.admit_handed(attempts, [each.batch for each in taken])
            return decisions
        finally:
            for each, answer in zip(taken, answers, strict=True):
                self._combiner.answer(each.batch, each.answer, answer)

    def successor(self) -> str | None:
        """Return which of those whose batches lie here is to decide next: the first after this instance by name.

        Others may have no claims any more, and nor may one that has stopped waiting for the answer. The lock would be
        kept for them for a while, and who waits would not know.
        """
        still_waits = time.monotonic() - ANSWER_SECONDS
        senders = {each.sender for each in self._waiting.values() if each.arrived_at > still_waits}
        return min(senders, key=lambda name: (name <= self._combiner.instance, name), default=None)

    def waiting(self) -> Sequence[HandedBatch]:
        """Return the batches that lie here."""
        return [each.batch for each in self._waiting.values()]

    def decline(self) -> None:
        """Send everything back that lies here."""
        for each in self._waiting.values():
            self._combiner.answer(each.batch, each.answer, None)
        self._waiting.clear()
        self.claims = self.last = 0

    def _take(self) -> list[_Waiting]:
        taken: list[_Waiting] = []
        self.last = 0
        while self._waiting and self.last < _MOST_OF_OTHERS:
            each = self._waiting.pop(next(iter(self._waiting)))
            taken.append(each)
            self.last += each.batch.size
        self.claims -= self.last
        self.was_used = self.was_used or bool(taken)
        self.usual = max(self.last, 0.95 * self.usual)
        return taken


class Combiner:
    """This instance's side of combining.

    Args:
        instance: its name.
        post: carries the messages.
        observer: sees what is combined.
    """

    def __init__(self, instance: str, post: Post, observer: CombineObserver) -> None:
        self.instance = instance
        self.observer = observer
        self._post = post
        self._desks: dict[str, Desk] = {}
        self._expected: dict[str, asyncio.Future[Answered]] = {}
        self._invited_at: dict[str, float] = {}
        self._pausing: dict[str, asyncio.Future[None]] = {}
        post.deliver_to(self)

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
            desk.decline()

    def journey(self, coupon_name: str, attempts: Sequence[Attempt]) -> "Journey | None":
        """Begin to hand a batch over; None if it cannot be, because the database will refuse it."""
        batch = handed_batch(str(uuid7()), coupon_name, attempts)
        return None if batch is None else Journey(self, self._post, batch)

    def is_invited(self, coupon_name: str) -> bool:
        """Whether the holder has just released the lock for this instance to take it. True once."""
        invited_at = self._invited_at.pop(coupon_name, None)
        return invited_at is not None and time.monotonic() - invited_at < _INVITATION_SECONDS

    async def pause(self, coupon_name: str) -> None:
        """Wait before a lock that is reserved is asked for again: not after this instance is invited to take it."""
        loop = asyncio.get_running_loop()
        over = self._pausing[coupon_name] = loop.create_future()
        timer = loop.call_later(_ASK_AGAIN_SECONDS, _end, over)
        try:
            await over
        finally:
            timer.cancel()
            self._pausing.pop(coupon_name, None)

    def expect(self, batch_id: str) -> "asyncio.Future[Answered]":
        """Return the answer to a batch, in the future. Call `forget` in the end."""
        answer = self._expected[batch_id] = asyncio.get_running_loop().create_future()
        return answer

    def forget(self, batch_id: str) -> None:
        self._expected.pop(batch_id, None)

    def answer(self, batch: HandedBatch, answer: Answer, decisions: BatchDecisions | None) -> None:
        """Answer a batch; None if it was not decided here."""
        if decisions is not None:
            self.observer.combined(batch.coupon_name, "holder", batch.size)
        answer(answered(batch.id, decisions))

    def arrived(self, sender: str, message: bytes, answer: Answer) -> None:
        """See `ports.Mailbox`."""
        received = read(message)
        if isinstance(received, Answered):
            expected = self._expected.get(received.batch_id)
            if expected is not None and not expected.done():
                expected.set_result(received)
        elif received is not None:
            desk = self._desks.get(received.coupon_name)
            if desk is None:
                self.answer(received, answer, None)
            else:
                desk.add(sender, received, answer)

    def invited(self, coupon_name: str) -> None:
        """See `ports.Mailbox`."""
        now = time.monotonic()
        if len(self._invited_at) > 1000:
            self._invited_at = {name: at for name, at in self._invited_at.items() if now - at < _INVITATION_SECONDS}
        self._invited_at[coupon_name] = now
        if coupon_name in self._pausing:
            _end(self._pausing[coupon_name])


def _end(pause: "asyncio.Future[None]") -> None:
    if not pause.done():
        pause.set_result(None)


class Journey:
    """A batch on its way to the holder of its lock and back.

    Attributes:
        decisions: the holder's; None until it has answered.
        was_sent: whether a holder may have received it. If so, and there is no answer, others may decide it.
    """

    def __init__(self, combiner: Combiner, post: Post, batch: HandedBatch) -> None:
        self.batch = batch
        self.decisions: BatchDecisions | None = None
        self.was_sent = False
        self._combiner = combiner
        self._post = post

    async def hand(self) -> HandOver:
        """Hand the batch to the holder, and wait for its answer.

        A lock that is reserved is asked for again. So is one that has just been released by the holder, which has
        declined the batch: the batch keeps its id, and is decided once, whoever receives it.

        Returns:
            `SENT` if there are decisions. `UNKNOWN` if the holder is silent. Otherwise why nobody takes the batch.
        """
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await self._hand(handed(self.batch))
        except TimeoutError:
            return HandOver.UNKNOWN

    async def _hand(self, message: bytes) -> HandOver:
        found = HandOver.RESERVED
        for _ in range(_ASKS):
            if self._combiner.is_invited(self.batch.coupon_name):
                return HandOver.FREE
            try:
                found = await self._hand_once(message)
            finally:
                self._combiner.forget(self.batch.id)
            if found is not HandOver.RESERVED:
                return found
            await self._combiner.pause(self.batch.coupon_name)
        return found

    async def _hand_once(self, message: bytes) -> HandOver:
        """The same once. `RESERVED` if the batch was declined."""
        name = self.batch.coupon_name
        answer = self._combiner.expect(self.batch.id)
        started = time.monotonic()
        was_sent, self.was_sent = self.was_sent, True
        found = await self._post.hand(name, message)
        if found is not HandOver.SENT:
            self.was_sent = was_sent or found is HandOver.UNKNOWN
            return found
        decisions = (await answer).decisions
        if decisions is None or (not isinstance(decisions, AllClaimed) and len(decisions) != self.batch.size):
            return HandOver.RESERVED
        self.decisions = decisions
        self._combiner.observer.combine_waited(name, time.monotonic() - started)
        self._combiner.observer.combined(name, "origin", self.batch.size)
        return HandOver.SENT
