"""A TCP proxy that breaks a conversation where a test says so: between what was asked and what was answered."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext

Converse = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)

Enter = Callable[[], AbstractContextManager[object]]
"""Where a socket is to be made: whatever this enters while it is."""


class Proxy:
    """Forwards bytes both ways. `cut_after(trigger)` arms it once: a request that contains `trigger` is still
    delivered, but its answer is swallowed and the connection is reset.

    `target` may be changed at any time, and holds for connections that are made from then on. `delay_seconds` holds
    back each piece of an answer; while `is_silent`, answers vanish without a word: at once, or from a request on that
    contains what `silent_after(trigger)` was given. `cuts`, `delayed` and `swallowed` count what was done; `reset()`
    ends all connections at once.
    """

    def __init__(self, host: str, port: int, enter: Enter = nullcontext) -> None:
        self.target = (host, port)
        self.delay_seconds = 0.0
        self.is_silent = False
        self.cuts = self.delayed = self.swallowed = 0
        self.port = 0
        self._enter = enter
        self._trigger: bytes | None = None
        self._silencer: bytes | None = None
        self._on_cut: Callable[[], None] = lambda: None
        self._writers: set[asyncio.StreamWriter] = set()

    def cut_after(self, trigger: bytes, on_cut: Callable[[], None] = lambda: None) -> None:
        self._trigger = trigger
        self._on_cut = on_cut

    def silent_after(self, trigger: bytes) -> None:
        self._silencer = trigger

    def reset(self) -> int:
        """Reset every connection, both ends. Returns how many there were."""
        count = len(self._writers)
        for writer in self._writers:
            with contextlib.suppress(OSError, ValueError):  # it is being closed already
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            writer.transport.abort()
        return count

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with connected(*self.target, writer, enter=self._enter) as (server_reader, server_writer):
            self._writers.add(writer)
            cut = asyncio.Event()
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._forward(reader, server_writer, cut))
                    group.create_task(self._return(server_reader, writer, cut))
            finally:
                self._writers.discard(writer)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, cut: asyncio.Event) -> None:
        while data := await reader.read(65536):
            if self._trigger is not None and self._trigger in data:
                self._trigger = None
                self.cuts += 1
                cut.set()
            if self._silencer is not None and self._silencer in data:
                self._silencer = None
                self.is_silent = True
            writer.write(data)
            await writer.drain()
        writer.close()

    async def _return(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, cut: asyncio.Event) -> None:
        while data := await reader.read(65536):
            if cut.is_set():  # the server has answered, so what was asked is done
                self._on_cut()
                writer.transport.abort()
                return
            if self.is_silent:
                self.swallowed += 1
                continue
            if self.delay_seconds:
                self.delayed += 1
                await asyncio.sleep(self.delay_seconds)
            writer.write(data)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def connected(
    host: str, port: int, client: asyncio.StreamWriter, *, enter: Enter = nullcontext
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to the server on behalf of `client`; both are closed on leaving. It is made inside of `enter`."""
    writers = [client]
    try:
        with enter():
            ours = socket.socket()
        try:
            ours.setblocking(False)
            await asyncio.get_running_loop().sock_connect(ours, (host, port))
            server_reader, server_writer = await asyncio.open_connection(sock=ours)
        except BaseException:
            ours.close()
            raise
        writers.append(server_writer)
        yield server_reader, server_writer
    finally:
        for each in writers:
            each.transport.abort()
        for each in writers:
            with contextlib.suppress(OSError):
                await each.wait_closed()


@asynccontextmanager
async def listening(converse: Converse, listener: socket.socket | None = None) -> AsyncIterator[int]:
    """A port at which every connection is a task that runs `converse`; all end on leaving.

    That a connection breaks is no error. Without a `listener` it is a free port of 127.0.0.1.
    """
    conversations: set[asyncio.Task[None]] = set()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await converse(reader, writer)
        except* (OSError, RuntimeError):  # the latter is how uvloop calls a connection that is gone
            pass

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(run(reader, writer))
        conversations.add(task)
        task.add_done_callback(conversations.discard)

    server = await asyncio.start_server(accept, sock=listener or socket.create_server(("127.0.0.1", 0)))
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in conversations:
            task.cancel()
        await asyncio.gather(*conversations, return_exceptions=True)


@asynccontextmanager
async def proxy_to(
    host: str, port: int, *, listener: socket.socket | None = None, enter: Enter = nullcontext
) -> AsyncIterator[Proxy]:
    """A proxy, until it is left.

    Args:
        host, port: where it forwards to.
        listener: a socket to listen on, instead of a free port of 127.0.0.1.
        enter: where the sockets to the target are made.
    """
    proxy = Proxy(host, port, enter)
    async with listening(proxy.converse, listener) as proxy.port:
        yield proxy
