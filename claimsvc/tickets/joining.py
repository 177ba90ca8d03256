"""Lets claims wait in queues. Those of one coupon that arrive together join together."""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

from uuid_utils import uuid7

from claimsvc.domain import ClaimOptions, ClaimOutcome, JoinRequest, Queued, QueueFull, Replayed, SoldOut
from claimsvc.domain.claims import Attempt
from claimsvc.errors import ClaimsvcError, UnavailableError
from claimsvc.ports import Admission, Joined, PendingOutcome, Tickets

_MOST_AT_ONCE = 512
# A batch of this size shows that a queue is busy; the next batch then gets a moment to fill.
_BUSY_BATCH = 8
_LINGER_TURNS = 2
_LINGER_TURN_SECONDS = 0.001  # the resolution of uvloop's timers
# How much of the usual size is left with each batch that is smaller.
_FORGETTING = 0.95
# So many transactions at a time, so that claims keep connections.
_TRANSACTIONS = 4

_Waiting = tuple[JoinRequest, PendingOutcome]


class TicketDesk:
    """`ports.Joins`.

    Args:
        tickets: stores them.
        admission: says what a claim results in that gets no ticket because it would be refused.
        waiting_limit: how many requests may wait here.
    """

    def __init__(self, tickets: Tickets, admission: Admission, *, waiting_limit: int) -> None:
        self._tickets = tickets
        self._admission = admission
        self._waiting_limit = waiting_limit
        self._waiting: defaultdict[str, list[_Waiting]] = defaultdict(list)
        self._count = 0
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._transactions = asyncio.Semaphore(_TRANSACTIONS)
        self._draining = False
        # Called with the coupon when tickets have joined.
        self.on_joined: Callable[[str], None] = _ignore

    def join(self, coupon_name: str, user_id: str, options: ClaimOptions | None = None) -> PendingOutcome:
        """See `ports.Joins`."""
        answer = PendingOutcome()
        if self._draining or self._count >= self._waiting_limit:
            reason = "this instance is stopping" if self._draining else "too many requests wait"
            answer.set_exception(UnavailableError(reason, dependency="claimsvc"))
            return answer
        self._waiting[coupon_name].append((JoinRequest(str(uuid7()), user_id, options), answer))
        self._count += 1
        if coupon_name not in self._tasks:
            self._tasks[coupon_name] = asyncio.create_task(self._join_all(coupon_name))
        return answer

    async def drain(self) -> None:
        """Answer all requests that were accepted, and refuse new ones."""
        self._draining = True
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    async def _join_all(self, coupon_name: str) -> None:
        """Join batch after batch, until none wait. What arrives meanwhile joins with the next."""
        usual_size = 0.0
        try:
            while coupon_name in self._waiting:
                await self._linger(coupon_name, usual_size)
                async with self._transactions:
                    if batch := self._take(coupon_name, _MOST_AT_ONCE):
                        usual_size = max(len(batch), _FORGETTING * usual_size)
                        await self._join(coupon_name, batch)
        finally:
            del self._tasks[coupon_name]
            # After an unexpected end, nobody waits for ever.
            for _, answer in self._take(coupon_name, None) if coupon_name in self._waiting else ():
                _fail(answer, UnavailableError("this instance is stopping", dependency="claimsvc"))

    async def _linger(self, coupon_name: str, usual_size: float) -> None:
        """Wait a moment until most of the usual number have arrived: a few large batches cost less than many small."""
        for _ in range(_LINGER_TURNS if usual_size >= _BUSY_BATCH else 0):
            if 4 * len(self._waiting[coupon_name]) >= 3 * usual_size or self._draining:
                return
            await asyncio.sleep(_LINGER_TURN_SECONDS)

    def _take(self, coupon_name: str, most: int | None) -> list[_Waiting]:
        waiting = self._waiting[coupon_name]
        taken, rest = waiting[:most], waiting[len(waiting[:most]) :]
        self._count -= len(taken)
        if rest:
            self._waiting[coupon_name] = rest
        else:
            del self._waiting[coupon_name]
        return [(request, answer) for request, answer in taken if not answer.done()]

    async def _join(self, coupon_name: str, batch: list[_Waiting]) -> None:
        requests = [request for request, _ in batch]
        try:
            outcomes = await self._outcomes(coupon_name, requests)
        except BaseException as error:
            for _, answer in batch:
                _fail(answer, error)
            if isinstance(error, ClaimsvcError):
                return
            raise
        for (_, answer), outcome in zip(batch, outcomes, strict=True):
            if not answer.done():
                answer.set_result(outcome)
        # Whoever has somebody before them, or is still to be drawn, waits for a time that is known already.
        if any(isinstance(outcome, Queued) and outcome.ticket.ahead == 0 for outcome in outcomes):
            self.on_joined(coupon_name)

    async def _outcomes(self, coupon_name: str, requests: list[JoinRequest]) -> list[ClaimOutcome]:
        joined = await self._tickets.join(coupon_name, requests)
        if any(isinstance(outcome, SoldOut) for outcome in joined):
            joined = await self._join_waiting_list(coupon_name, requests, joined)
        refused = [
            _attempt(coupon_name, request) for request, outcome in zip(requests, joined, strict=True) if outcome is None
        ]
        looked = iter(await self._admission.look(refused) if refused else ())
        # None of which reading does not tell may change soon, as a unit that comes back.
        return [
            (next(looked) or QueueFull(1)) if outcome is None else await self._current(outcome) for outcome in joined
        ]

    async def _join_waiting_list(
        self, coupon_name: str, requests: list[JoinRequest], joined: list[Joined | None]
    ) -> list[Joined | None]:
        """Let those wait for units that come back whose claims would be refused for no other reason."""
        ask = [request for request, outcome in zip(requests, joined, strict=True) if isinstance(outcome, SoldOut)]
        looked = await self._admission.look([_attempt(coupon_name, request) for request in ask])
        eligible = [
            replace(request, is_eligible=True)
            for request, outcome in zip(ask, looked, strict=True)
            if isinstance(outcome, SoldOut)
        ]
        waiting = await self._tickets.join(coupon_name, eligible) if eligible else []
        found = dict(zip([request.ticket_id for request in eligible], waiting, strict=True))
        return [
            found.get(request.ticket_id) if isinstance(outcome, SoldOut) else outcome
            for request, outcome in zip(requests, joined, strict=True)
        ]

    async def _current(self, outcome: Joined) -> ClaimOutcome:
        """Return what joining resulted in. A stored answer names a place of then, so the ticket is read again."""
        if isinstance(outcome, Replayed) and isinstance(outcome.answer, Queued):
            ticket = await self._tickets.ticket(outcome.answer.ticket.id)
            return outcome if ticket is None else replace(outcome, answer=Queued(ticket))
        return outcome


def _attempt(coupon_name: str, request: JoinRequest) -> Attempt:
    """The claim as reading tells its refusal: without its key, under which no refusal to join is stored."""
    options = request.options
    if options is not None and options.idempotency_key is not None:
        options = replace(options, idempotency_key=None)
    return Attempt(request.ticket_id, coupon_name, request.user_id, options)


def _fail(answer: PendingOutcome, error: BaseException) -> None:
    if not answer.done():
        is_ours = isinstance(error, asyncio.CancelledError)
        stopping = UnavailableError("this instance is stopping", dependency="claimsvc")
        answer.set_exception(stopping if is_ours else error)


def _ignore(coupon_name: str) -> None:
    pass
