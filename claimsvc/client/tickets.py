"""Tickets: claims that wait in the queue of a coupon. One is watched by a stream of events, or else asked for."""

import asyncio
import logging
from asyncio import sleep
from contextlib import aclosing, suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

from claimsvc.client.errors import ClaimClientError
from claimsvc.client.events import Event
from claimsvc.client.outcomes import (
    Claimed,
    ClaimRefusal,
    Dead,
    Expired,
    HoldContinued,
    LeaveOutcome,
    Left,
    Refused,
    SeenTicket,
    TicketEnd,
    TicketStarted,
    UnknownTicket,
)
from claimsvc.client.reading import Members, claim_of, document_of, problem_of, ticket_of
from claimsvc.client.refusals import OF_A_TICKET, OF_CLAIMING, OF_LEAVING, refusal
from claimsvc.client.requests import Requests, quoted
from claimsvc.client.retries import is_transient
from claimsvc.client.sending import LOST, ClientResponse

# Pauses between questions where there is no stream: a second more each time.
_LONGEST_POLL_SECONDS = 4
# Streams in a row that told nothing new and ended at once, after which the ticket is asked for instead.
_MOST_FRUITLESS = 3
_SHORT_SECONDS = 5.0
# A program that is interrupted ends soon after.
_LEAVING_SECONDS = 2.0

_log = logging.getLogger("claimsvc.client")


class Ticket:
    """A claim that waits in the queue of a coupon. Several tasks may use it concurrently.

    Its members are as they were when the ticket was seen last; `wait` and `refresh` look at it again.
    """

    def __init__(self, requests: Requests, answer: ClientResponse) -> None:
        self._requests = requests
        self._last_event_id = ""
        self._seen, self._end = _read(answer)
        self._path = f"/api/tickets/{quoted(self._seen.id)}"

    def __repr__(self) -> str:
        return f"<Ticket {self.id} of {self.coupon_name}: {self.state}, position {self.position}>"

    @property
    def seen(self) -> SeenTicket:
        """All of it, as it was seen last."""
        return self._seen

    @property
    def id(self) -> str:
        """Its id, with which `ClaimClient.ticket` finds it again."""
        return self._seen.id

    @property
    def coupon_name(self) -> str:
        """The coupon that is claimed."""
        return self._seen.coupon_name

    @property
    def user_id(self) -> str:
        """The user who claims it."""
        return self._seen.user_id

    @property
    def state(self) -> str:
        """Its state: `waiting`, `started`, or its end."""
        return self._seen.state

    @property
    def position(self) -> int | None:
        """Its place in the queue, from 1; 0 once its claim has begun; None once it has ended. It never grows."""
        return self._seen.position

    @property
    def eta_seconds(self) -> float | None:
        """In how many seconds its claim begins, at the pace of late; None if that cannot be said."""
        return self._seen.eta_seconds

    @property
    def stopped(self) -> str | None:
        """Why no ticket of its queue is started now, such as `paused` or `sold-out`; None if they are."""
        return self._seen.stopped

    @property
    def joined_at(self) -> datetime:
        """When it joined the queue."""
        return self._seen.joined_at

    @property
    def end(self) -> TicketEnd | None:
        """What became of it; None as long as it has not ended."""
        return self._end

    async def refresh(self) -> "Ticket | UnknownTicket | Refused":
        """Look at the ticket again, and return it.

        Raises:
            ClaimClientError: see `claimsvc.client.errors`.
        """
        answer = await self._requests.send("GET", self._path)
        if answer.status != 200:
            return refusal(answer, OF_A_TICKET)
        self._seen, self._end = _read(answer)
        # The next stream begins with the ticket as it is then.
        self._last_event_id = ""
        return self

    async def wait(self, timeout: float | None = None, *, leave_if_cancelled: bool = True) -> TicketEnd:
        """Wait for the end of the ticket, and return it.

        The service tells each change by a stream, which is opened again when it is interrupted. Where no stream comes
        through, the ticket is asked for after 1, 2, 3 and 4 seconds, and then every 4 seconds.

        Args:
            timeout: for how many seconds; None for as long as it takes.
            leave_if_cancelled: whether the ticket leaves the queue if the task that waits is cancelled. That takes 2 s
                at most, and may fail without a sign.

        Raises:
            TimeoutError: the ticket has not ended in this time. It keeps its place.
            ClaimClientError: see `claimsvc.client.errors`. The ticket keeps its place.
        """
        try:
            async with asyncio.timeout(timeout):
                return await self._ended()
        except asyncio.CancelledError:
            if leave_if_cancelled and self._end is None:
                await self._leave_in_passing()
            raise

    async def leave(self) -> LeaveOutcome:
        """Leave the queue. Leaving again has no effect.

        Raises:
            ClaimClientError: see `claimsvc.client.errors`.
        """
        answer = await self._requests.send("DELETE", self._path)
        if answer.status == 204:
            left = self._end = Left(**answer.about())
            self._seen = replace(self._seen, state="left", position=None, ahead=None, eta_seconds=None, stopped=None)
            return left
        outcome = refusal(answer, OF_LEAVING)
        if isinstance(outcome, TicketStarted):
            self._seen, self._end = _read(replace(answer, document=Members(answer.document).take("ticket", dict)))
        return outcome

    async def _leave_in_passing(self) -> None:
        with suppress(ClaimClientError, TimeoutError, RuntimeError):
            async with asyncio.timeout(_LEAVING_SECONDS):
                await self.leave()

    async def _ended(self) -> TicketEnd:
        fruitless = polls = 0
        while self._end is None:
            if fruitless < _MOST_FRUITLESS and self._requests.has_room_for_stream:
                fruitless = await self._watched(fruitless)
            else:
                polls += 1
                await sleep(min(polls, _LONGEST_POLL_SECONDS))
                found = await self.refresh()
                if not isinstance(found, Ticket):
                    self._end = found
        return self._end

    async def _watched(self, fruitless: int) -> int:
        """Watch the ticket by one stream, and then pause, unless it has ended.

        Returns:
            How many streams in a row were fruitless, this one included; the most if no stream helps.
        """
        before, began = self._seen, asyncio.get_running_loop().time()
        try:
            if not await self._watch():
                return _MOST_FRUITLESS
        except LOST as failure:
            _log.debug("the stream of ticket %s is interrupted: %s", self.id, repr(failure))
        if self._end is None:
            is_short = asyncio.get_running_loop().time() - began < _SHORT_SECONDS
            fruitless = fruitless + 1 if is_short and self._seen == before else 0
            await sleep(self._requests.retries.pause_seconds(fruitless, None))
        return fruitless

    async def _watch(self) -> bool:
        """Follow the ticket by one stream, until that or the ticket ends. Returns whether another stream may help."""
        async with self._requests.stream(f"{self._path}/events", self._last_event_id) as stream:
            if isinstance(stream, ClientResponse):
                slug = stream.problem.slug if stream.problem is not None else None
                if slug == "unknown-ticket":
                    self._end = UnknownTicket(**stream.about())
                return is_transient(stream.status, slug)
            async with aclosing(stream):
                async for event, answer in stream:
                    self._see(event, answer)
                    if self._end is not None:
                        break
        return True

    def _see(self, event: Event, answer: ClientResponse) -> None:
        self._last_event_id = event.id
        if event.name == "ticket":
            text = event.data.decode("utf-8", "replace")
            self._seen, self._end = _read(replace(answer, document=document_of(event.data), start=text[:200]))


def _read(answer: ClientResponse) -> tuple[SeenTicket, TicketEnd | None]:
    """Read a ticket, and what became of it.

    Raises:
        UnexpectedAnswerError: it cannot be read, or has an end that this client does not know.
        ProblemError: its claim was refused with a problem that is not an outcome of claiming.
    """
    seen, outcome = answer.read(ticket_of)
    about: dict[str, Any] = answer.about()
    match seen.state:
        case "claimed":
            found = replace(answer, document=(outcome or {}).get("claim"))
            return seen, Claimed(found.read(claim_of), **about)
        case "refused":
            document = (outcome or {}).get("problem")
            status = document.get("status") if isinstance(document, dict) else None
            if not isinstance(status, int):
                raise answer.unexpected("`outcome` has no problem")
            problem = problem_of(status, document)
            refused = replace(answer, status=status, document=document, problem=problem, retry_after_seconds=None)
            return seen, refusal(refused, OF_CLAIMING)
        case "expired":
            return seen, Expired(**about)
        case "left":
            return seen, Left(**about)
        case "dead":
            return seen, Dead(**about)
    if seen.ended_at is not None:
        raise answer.unexpected(f"the ticket has ended with {seen.state!r}, which this client does not know")
    return seen, None


AsyncClaimOutcome = Ticket | Claimed | HoldContinued | ClaimRefusal
