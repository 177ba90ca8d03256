"""Every boundary between the service and the outside, counted; and the one at which something happens."""

import asyncio
import contextlib
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum

from tests.faults.sweep.protocols import Conversation, Reply, Request
from tests.support.proxy import connected, listening

# They come by the clock, not by a claim: the watch over the masters, and the listener for hints.
_IN_THE_BACKGROUND = {"PING", "BLPOP"}
# Looking whether a queue is due.
_LOOK = "SELECT clock_timestamp(), min(due_at)"
_CHUNK = 65536


@dataclass(frozen=True, slots=True, order=True)
class Boundary:
    """The `ordinal`-th unit of a kind in the conversation with a server, during one run. Counted by kind, not over all,
    because conversations with several servers run side by side."""

    server: str
    kind: str
    ordinal: int

    def __str__(self) -> str:
        return f"{self.server} {self.kind}" + (f" #{self.ordinal}" if self.ordinal > 1 else "")


class Mode(StrEnum):
    """What happens at a boundary: before the request is delivered, or after the server has answered."""

    ERROR = "error"
    """The server refuses it, in its own words."""
    RESET = "reset"
    """The connection is reset before it is delivered."""
    LOST_REPLY = "lost reply"
    """It is delivered and done; then the connection is reset."""
    LATE_REQUEST = "late request"
    """It is delivered after the time-out."""
    LATE_REPLY = "late reply"
    """It is delivered; its answer comes after the time-out."""
    DEATH_BEFORE = "death before"
    DEATH_AFTER = "death after"
    """The process is killed before the request leaves it, or after the server has done it."""
    CANCEL_CALLER_BEFORE = "cancel caller before"
    CANCEL_CALLER_AFTER = "cancel caller after"
    """The task that answers the client is cancelled."""
    CANCEL_ALL_BEFORE = "cancel all before"
    CANCEL_ALL_AFTER = "cancel all after"
    """Every task that works for the claim is cancelled."""

    @property
    def is_after(self) -> bool:
        return self in {Mode.LOST_REPLY, Mode.LATE_REPLY} or self.value.endswith("after")

    @property
    def cuts(self) -> bool:
        return self in {Mode.RESET, Mode.LOST_REPLY, Mode.DEATH_BEFORE, Mode.DEATH_AFTER}

    @property
    def kills(self) -> bool:
        return self in {Mode.DEATH_BEFORE, Mode.DEATH_AFTER}

    @property
    def cancels(self) -> bool:
        return self.value.startswith("cancel")


class Conductor:
    """Counts boundaries while a run is recorded, and says where the one fault of the run is.

    Args:
        act: does to the service what the mode asks for: kills it, or cancels its tasks.
    """

    def __init__(self, act: Callable[[Mode], Awaitable[None]]) -> None:
        self.act = act
        self.counted: list[Boundary] = []
        self.fired = False
        self.delayed = 0
        """How many messages are being held up."""
        self.mode: Mode | None = None
        """What happens in this run."""
        self._at: Boundary | None = None
        self._ordinals: Counter[tuple[str, str]] = Counter()
        self._recording = False

    def begin(self, at: Boundary | None = None, mode: Mode | None = None) -> None:
        self.counted, self.fired, self._at, self.mode = [], False, at, mode
        self._ordinals.clear()
        self._recording = True

    def end(self) -> None:
        self._recording = False
        self._at = self.mode = None

    def pass_by(self, server: str, kind: str) -> Mode | None:
        """Count a request; returns what is to happen to it."""
        if not self._recording or kind in _IN_THE_BACKGROUND or _LOOK in kind:
            return None
        self._ordinals[server, kind] += 1
        boundary = Boundary(server, kind, self._ordinals[server, kind])
        self.counted.append(boundary)
        if boundary != self._at or self.fired:
            return None
        self.fired = True
        return self.mode


class _CutError(OSError):
    """The conversation ends here."""


class _Between:
    """One connection, between its two ends."""

    def __init__(self, proxy: "BoundaryProxy", client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._conversation = proxy.conversation()
        self._marked: dict[Request, Mode] = {}
        self._refused_by_us: dict[Request, bytes] = {}

    async def forward(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(_CHUNK):
            for request in self._conversation.requests(data):
                if mode := self._proxy.conductor.pass_by(self._proxy.name, request.kind):
                    request = await self._ask(request, mode)
                    if request in self._refused_by_us:
                        self._conversation.forwarded(request)
                        await self._tell_what_we_refused()
                        continue
                self._conversation.forwarded(request)
                self._server.write(request.raw)
            await self._server.drain()
        if self._server.can_write_eof():
            self._server.write_eof()

    async def _ask(self, request: Request, mode: Mode) -> Request:
        """What happens before the request is delivered. Returns what is delivered."""
        if mode is Mode.ERROR:
            return self._ask_in_vain(request)
        if mode.is_after and request.answered:
            self._marked[request] = mode
            return request
        if mode is Mode.LATE_REQUEST or mode is Mode.LATE_REPLY:
            await self._proxy.delay()
        else:
            await self._proxy.conductor.act(mode)
        if mode.cuts:
            self._cut()
        return request

    def _ask_in_vain(self, request: Request) -> Request:
        failing = self._conversation.failing(request)
        if failing is not None:
            self._marked[failing] = Mode.ERROR
            return failing
        answer, is_the_end = self._conversation.failure(request)
        if is_the_end:
            self._client.write(answer)
            raise _CutError
        self._refused_by_us[request] = answer
        return request

    async def answer(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(_CHUNK):
            for reply in self._conversation.replies(data):
                self._client.write(await self._reply(reply))
                await self._tell_what_we_refused()
            await self._client.drain()
        self._client.close()

    async def _tell_what_we_refused(self) -> None:
        pending = self._conversation.pending
        while pending and pending[0] in self._refused_by_us:
            self._client.write(self._refused_by_us.pop(pending.popleft()))
        await self._client.drain()

    async def _reply(self, reply: Reply) -> bytes:
        """What happens to a piece of an answer. Returns what is delivered of it."""
        mode = self._marked.get(reply.of) if reply.of is not None else None
        if mode is None:
            return reply.raw
        if mode is Mode.ERROR:
            return self._conversation.disguised(reply)
        if reply.of not in reply.ended and mode.cuts:
            return b""
        if mode is Mode.LATE_REPLY:
            await self._client.drain()
            await self._proxy.delay()
            del self._marked[reply.of]  # type: ignore[arg-type]
        elif reply.of in reply.ended:
            await self._client.drain()
            await self._proxy.conductor.act(mode)
            if mode.cuts:
                self._cut()
        return reply.raw

    def _cut(self) -> None:
        with contextlib.suppress(OSError):
            self._client.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
        raise _CutError


class BoundaryProxy:
    """Stands before one server, and understands what is said.

    Args:
        name: the server's, in boundaries.
        late_seconds: how late `late` is: longer than the service's time-out for this server.
    """

    def __init__(
        self, name: str, conversation: Callable[[], Conversation], conductor: Conductor, *, late_seconds: float
    ) -> None:
        self.name = name
        self.conversation = conversation
        self.conductor = conductor
        self.late_seconds = late_seconds
        self.target = ("127.0.0.1", 0)
        self.port = 0

    async def delay(self) -> None:
        self.conductor.delayed += 1
        try:
            await asyncio.sleep(self.late_seconds)
        finally:  # the server may end the conversation meanwhile
            self.conductor.delayed -= 1

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with connected(*self.target, writer) as (server_reader, server_writer):
            between = _Between(self, writer, server_writer)
            forwarding = asyncio.ensure_future(between.forward(reader))
            answering = asyncio.ensure_future(between.answer(server_reader))
            try:
                # The server's end ends it; the client's end alone does not, for its last word may be under way.
                await asyncio.wait({forwarding, answering}, return_when=asyncio.FIRST_EXCEPTION)
            finally:
                for task in (forwarding, answering):
                    task.cancel()
                await asyncio.gather(forwarding, answering, return_exceptions=True)


@asynccontextmanager
async def boundary_proxy(proxy: BoundaryProxy, host: str, port: int) -> AsyncIterator[BoundaryProxy]:
    """The proxy, listening, before the server at that address."""
    proxy.target = (host, port)
    async with listening(proxy.converse) as proxy.port:
        yield proxy
