"""The connections of `claimsvc.redis.wire` on the simulated network: bytes in the order in which they were written.

The wire itself is the service's own, down to what it writes and parses. A question travels, is answered and its answer
travels back as in `network`, but nothing on a connection overtakes what was sent before it.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import hiredis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ReadOnlyError

if TYPE_CHECKING:
    from tests.simulation.network import MasterHost

# Timers of one moment come in any order.
_APART_SECONDS = 1e-9
_CODES: dict[type[Exception], str] = {NoScriptError: "NOSCRIPT", ReadOnlyError: "READONLY"}


class SimulatedPool:
    """Makes connections of one instance to one master."""

    def __init__(self, host: "MasterHost", process: int) -> None:
        self._host = host
        self._process = process

    def make_connection(self) -> "SimulatedConnection":
        return SimulatedConnection(self._host, self._process)


class SimulatedConnection:
    """What a wire uses of a connection of redis-py."""

    def __init__(self, host: "MasterHost", process: int) -> None:
        self.process = process
        self._host = host
        self._loop = host.network.loop
        self._reader = asyncio.StreamReader(loop=self._loop)
        self._writer = self
        self._commands = hiredis.Reader()
        self._context: Any = None
        self._is_closed = False
        # When what was written last arrives, there and here.
        self._arrives_at = self._returns_at = 0.0
        self._waiting: deque[Sequence[str]] = deque()
        self._channels: list[str] = []

    async def connect(self) -> None:
        def arrive(answer: Callable[[Any], None]) -> None:
            self._host.receive(self.process, ("PING",), answer)

        timer = self._loop.call_later(0, lambda: None)
        self._context = timer._context  # type: ignore[attr-defined]
        await self._host.network.ask(arrive, timeout=1.0, late=lambda: RedisConnectionError("timed out"))
        self._host.connections.append(self)

    async def disconnect(self, *, nowait: bool = False) -> None:
        """What was written before still arrives; nothing comes back."""
        self._is_closed = True
        if self._host.can_reach(self.process):
            self.forget()

    def forget(self) -> None:
        """The master notices that the connection has ended."""
        if self in self._host.connections:
            self._host.connections.remove(self)
        for channel in self._channels:
            self._host.redis.unsubscribe(channel, self)

    def write(self, data: bytes) -> None:
        self._commands.feed(data)
        while command := self._commands.gets():
            network = self._host.network
            self._arrives_at = max(self._arrives_at + _APART_SECONDS, self._loop.now + network.delay())
            words = [word.decode("utf-8", "surrogateescape") for word in command]
            self._loop.call_at(self._arrives_at, self._arrive, words, context=self._loop.world)

    def _arrive(self, words: Sequence[str]) -> None:
        if not self._host.can_reach(self.process) or self._host.down:
            return  # nothing comes back, and some seconds later the connection is given up
        self._waiting.append(words)
        if len(self._waiting) == 1:
            self._do_next()

    def _do_next(self) -> None:
        """Commands of a connection are carried out one after the other."""
        words = self._waiting[0]

        def answer(what: Any) -> None:
            if words[0] == "SUBSCRIBE" and what is True:
                self._channels.append(words[1])
                self._host.redis.subscribe(words[1], self)
                what = ["subscribe", words[1], 1]
            self.reply(["pong", ""] if words[0] == "PING" and self._channels else what)
            self._waiting.popleft()
            if self._waiting:
                self._do_next()

        self._host.receive(self.process, ("PING",) if words[0] == "SUBSCRIBE" else words, answer)

    def deliver(self, channel: str, message: bytes) -> None:
        """A message was published on a channel that is received here."""
        self.reply(["message", channel, message])

    def reply(self, what: Any) -> None:
        """Send an answer back, or that the connection is lost."""
        if not self._host.can_reach(self.process):
            return
        if isinstance(what, RedisConnectionError):
            self.cut()
            return
        self._return(self._reader.feed_data, encoded(what))

    def cut(self) -> None:
        """The master ends the connection."""
        self.forget()
        self._return(self._reader.feed_eof)

    def _return(self, feed: Callable[..., None], *data: bytes) -> None:
        self._returns_at = max(self._returns_at + _APART_SECONDS, self._loop.now + self._host.network.delay())
        self._loop.call_at(self._returns_at, self._feed, feed, *data, context=self._context)

    def _feed(self, feed: Callable[..., None], *data: bytes) -> None:
        if not self._is_closed and not self._reader.at_eof():
            feed(*data)


def encoded(reply: Any) -> bytes:
    """A reply as a server writes it."""
    if isinstance(reply, Exception):
        return f"-{_CODES.get(type(reply), 'ERR')} {reply}\r\n".encode()
    if reply is None:
        return b"$-1\r\n"
    if reply is True:
        return b"+OK\r\n"
    if isinstance(reply, int):
        return b":%d\r\n" % reply
    if isinstance(reply, list):
        return b"*%d\r\n%b" % (len(reply), b"".join(map(encoded, reply)))
    data = reply.encode() if isinstance(reply, str) else reply
    return b"$%d\r\n%b\r\n" % (len(data), data)
