"""A connection to a master for many small messages.

A command of redis-py costs as much as a claim. Here, commands are written without waiting for the replies of those
before them, one task reads all replies, and nothing is done for each besides.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import hiredis
import structlog
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from claimsvc.redis.scripts import Script

_log = structlog.get_logger("claimsvc.masters")

_AGAIN_SECONDS = 0.5
# A connection on which nothing arrives is asked whether it still exists after this time; and again this later, it does
# not.
_QUIET_SECONDS = 1.0
_READ_BYTES = 65536
_NOTHING = object()

Word = str | bytes | int


class Server(Protocol):
    """What a connection needs to know of a master."""

    name: str
    up: bool
    connection_pool: Any


class Wire:
    """A connection to a master, opened again whenever it is lost.

    Args:
        master: whose address and credentials are used.
        channel: messages of this channel are received, if set; then nothing else can be sent.
        receive: called with each message.
    """

    def __init__(self, master: Server, channel: str = "", receive: Callable[[bytes], None] | None = None) -> None:
        self._master = master
        self._channel = channel
        self._receive = receive
        self._writer: asyncio.StreamWriter | None = None
        self._expected: deque[asyncio.Future[Any] | None] = deque()
        self._is_given_up = False
        # Ends the wait for more data.
        self._quiet: asyncio.Timeout | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is a connection to a master that answers."""
        return self._writer is not None and self._master.up

    def send(self, *words: Word) -> "asyncio.Future[Any]":
        """Send a command, and return its reply in the future, which is a `RedisError` if the connection is lost.

        Raises:
            RedisConnectionError: there is no connection; nothing was sent.
        """
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._write(reply, words)
        return reply

    def send_only(self, *words: Word) -> None:
        """Send a command whose reply does not matter. Without a connection, nothing is sent."""
        with contextlib.suppress(RedisConnectionError):
            self._write(None, words)

    async def run_script(self, script: Script, keys: Sequence[str], *arguments: Word) -> Any:
        """Run a script and return its reply.

        Raises:
            RedisConnectionError: it was not sent, or the connection was lost meanwhile.
            RedisError: it failed.
        """
        try:
            return await self.send("EVALSHA", script.digest, len(keys), *keys, *arguments)
        except hiredis.ReplyError as error:
            if not str(error).startswith("NOSCRIPT"):
                raise RedisError(str(error)) from error
        return await self.send("EVAL", script.text, len(keys), *keys, *arguments)

    def give_up(self) -> None:
        """Give the connection up, because a reply is late: what still waits for one fails. It is opened again."""
        self._is_given_up = True
        self._writer = None
        if self._quiet is not None and not self._quiet.expired():
            self._quiet.reschedule(asyncio.get_running_loop().time())

    async def run(self) -> None:
        """Keep the connection open until cancelled."""
        while True:
            try:
                await self._serve()
            except (RedisError, OSError):
                pass  # `redis.masters` logs that the master is down
            except Exception:  # noqa: BLE001 - else nothing would be received any more
                _log.exception("a connection for messages failed", master=self._master.name)
            await asyncio.sleep(_AGAIN_SECONDS)

    def _write(self, reply: "asyncio.Future[Any] | None", words: Sequence[Word]) -> None:
        if self._writer is None:
            raise RedisConnectionError("there is no connection")
        self._expected.append(reply)
        self._writer.write(_packed(words))

    async def _serve(self) -> None:
        # redis-py connects and signs in. After that, its reader and writer are used directly.
        connection = self._master.connection_pool.make_connection()
        try:
            await connection.connect()
            self._is_given_up = False
            reader, self._writer = connection._reader, connection._writer
            if self._channel:
                self._writer.write(_packed(("SUBSCRIBE", self._channel)))
            await self._read(reader)
        finally:
            self._writer = self._quiet = None
            lost, self._expected = self._expected, deque()
            for reply in lost:
                if reply is not None and not reply.done():
                    reply.set_exception(RedisConnectionError("the connection was lost"))
            await connection.disconnect(nowait=True)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        """Read until the connection is lost."""
        parser = hiredis.Reader(notEnoughData=_NOTHING)
        is_asked = False
        while not self._is_given_up:
            try:
                async with asyncio.timeout(_QUIET_SECONDS) as self._quiet:
                    data = await reader.read(_READ_BYTES)
            except TimeoutError:
                if is_asked or self._is_given_up:
                    return
                is_asked = True
                self.send_only("PING")
                continue
            if not data:
                return
            is_asked = False
            parser.feed(data)
            while (reply := parser.gets()) is not _NOTHING:
                self._received(reply)

    def _received(self, reply: Any) -> None:
        if self._receive is not None:
            # The others confirm the subscription, or that the connection exists.
            if isinstance(reply, list) and reply[0] == b"message":
                self._receive(reply[2])
            return
        expected = self._expected.popleft()
        if expected is None or expected.done():
            return
        if isinstance(reply, Exception):
            expected.set_exception(reply)
        else:
            expected.set_result(reply)


def _packed(words: Sequence[Word]) -> bytes:
    packed: bytes = hiredis.pack_command(tuple(words))  # type: ignore[arg-type] # it takes any number
    return packed
