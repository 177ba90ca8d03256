"""Who watches tickets: by requests that wait for a change, and by streams of server-sent events.

All of them end when the service stops, so that their clients go on at another instance.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager

from aiohttp import hdrs, web

from claimsvc.application import tickets as ticket_cases
from claimsvc.domain import Ticket, UnknownTicket
from claimsvc.errors import TransientError
from claimsvc.http.server.wire import RESPONSE_HEADERS
from claimsvc.ports import Progress

EVENT_STREAM: Mapping[str, str] = {
    **RESPONSE_HEADERS,
    hdrs.CONTENT_TYPE: "text/event-stream; charset=utf-8",
    # Without it, nginx buffers the stream, and the page would be updated in bursts.
    "X-Accel-Buffering": "no",
}
# After a stream without an event for so long, something is sent, because proxies close connections that are silent.
_BEAT_SECONDS = 15.0
_BEAT = b": still waiting\n\n"
# How soon browsers come back after a stream has broken off (milliseconds).
GREETING = b"retry: 2000\n\n"
# How often is looked whether clients have gone, which aiohttp tells nobody who waits.
_LOOK_SECONDS = 1.0
# A queue may start a thousand tickets a second; nobody reads so many places.
_SECONDS_BETWEEN_EVENTS = 0.25


class Watchers:
    """Those who watch tickets on this instance.

    Args:
        most: how many there may be.
        most_of_address: how many of one address, so that others can watch, too.
    """

    def __init__(self, most: int = 10_000, most_of_address: int = 5000) -> None:
        self.most = most
        self.most_of_address = most_of_address
        self.is_stopping = False
        self._of_address: Counter[str] = Counter()
        # Those who wait now, and their connections.
        self._limits: dict[asyncio.Timeout, asyncio.Transport | None] = {}
        self._look: asyncio.TimerHandle | None = None

    def is_full_for(self, address: str) -> bool:
        """Whether nobody at this address may begin to watch now."""
        return self._of_address.total() >= self.most or self._of_address[address] >= self.most_of_address

    @contextmanager
    def place(self, address: str) -> Iterator[bool]:
        """Count a watcher. Yields whether there is room; if not, it may not watch.

        Args:
            address: of its client.
        """
        if self.is_stopping or self.is_full_for(address):
            yield False
            return
        self._of_address[address] += 1
        try:
            yield True
        finally:
            self._of_address[address] -= 1
            if not self._of_address[address]:
                del self._of_address[address]

    async def changed(
        self, progress: Progress, ticket: Ticket, within_seconds: float, transport: asyncio.Transport | None = None
    ) -> Ticket | UnknownTicket:
        """Wait as `application.tickets.changed`, but not longer than this instance runs and the client is there.

        Args:
            progress: tells what becomes of tickets.
            ticket: as it was read last.
            within_seconds: how long to wait at most.
            transport: the client's connection; None if it does not matter.
        """
        if self.is_stopping:
            return ticket
        limit = asyncio.timeout(None)
        try:
            async with limit:
                self._limits[limit] = transport
                self._look_soon()
                return await ticket_cases.changed(progress, ticket, within_seconds=within_seconds)
        except TimeoutError:
            if not limit.expired():
                raise
            return ticket
        finally:
            del self._limits[limit]

    def stop(self) -> None:
        """Let all of them go, and admit no more."""
        self.is_stopping = True
        for limit in self._limits:
            _end(limit)

    def _look_soon(self) -> None:
        if self._look is None:
            self._look = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look_at_connections)

    def _look_at_connections(self) -> None:
        self._look = None
        for limit, transport in self._limits.items():
            if transport is not None and transport.is_closing():
                _end(limit)
        # One timer serves all, and none runs while nobody waits.
        if self._limits:
            self._look_soon()


def _end(limit: asyncio.Timeout) -> None:
    if not limit.expired():
        limit.reschedule(asyncio.get_running_loop().time())


WATCHERS: web.AppKey[Watchers] = web.AppKey("watchers", Watchers)


def event_id(ticket: Ticket) -> str:
    """The id of the event that tells this of a ticket: it is the same as long as there is nothing new to tell."""
    return "-".join(str(each) for each in (ticket.state, ticket.position, ticket.stopped) if each is not None)


class TicketStream(web.StreamResponse):
    """The server-sent events of a ticket, until it has ended, its client disconnects, or the service stops.

    They are sent when aiohttp ends the response, behind the handler: how long somebody watches is no duration of a
    request.

    Args:
        watchers: those of this instance.
        address: of the client.
        events: the events. Not begun if there is no room.
    """

    def __init__(self, watchers: Watchers, address: str, events: AsyncIterator[bytes]) -> None:
        super().__init__(headers=EVENT_STREAM)
        self.force_close()  # a client that comes back must be able to reach another instance
        self._watchers = watchers
        self._address = address
        self._events = events

    async def write_eof(self, data: bytes = b"") -> None:
        """Send the events. aiohttp calls this after the head was sent."""
        if not self._must_be_empty_body:
            with self._watchers.place(self._address) as has_room:
                if has_room:
                    async for event in self._events:
                        await self.write(event)
        await super().write_eof(data)


async def following(
    watchers: Watchers,
    progress: Progress,
    ticket: Ticket,
    seen: str,
    transport: asyncio.Transport | None,
    *,
    beat_seconds: float = _BEAT_SECONDS,
) -> AsyncIterator[Ticket | None]:
    """Yield a ticket whenever there is something new to tell of it; None when nothing was for a while.

    It ends when the ticket has ended or is no longer known, when the service stops, and when it fails: the client comes
    back, and is told why.

    Args:
        watchers: those of this instance.
        progress: tells what becomes of tickets.
        ticket: as it is now.
        seen: the id of the last event that the client has seen; empty if it has seen none.
        transport: the client's connection; once it is lost, None is yielded soon, and sending that fails.
        beat_seconds: how long nothing may be yielded.
    """
    found: Ticket | UnknownTicket = ticket
    while isinstance(found, Ticket):
        latest = event_id(found)
        is_new, seen = latest != seen, latest
        yield found if is_new else None
        if found.state.is_end or watchers.is_stopping:
            return
        try:
            if is_new:
                await asyncio.sleep(_SECONDS_BETWEEN_EVENTS)
            found = await watchers.changed(progress, found, beat_seconds, transport)
        except TransientError:
            return


def frame(name: str, ticket: Ticket | None, data: bytes) -> bytes:
    """An event of a stream; without a ticket, a sign of life.

    Args:
        name: of the event.
        ticket: what it is about.
        data: the event's data, in one line.
    """
    if ticket is None:
        return _BEAT
    return b"event: %b\nid: %b\ndata: %b\n\n" % (name.encode(), event_id(ticket).encode(), data)
