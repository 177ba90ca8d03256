"""A TCP proxy that breaks a conversation where a test says so: between what was asked and what was answered."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

Converse = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Proxy:
    """Forwards bytes both ways. `cut_after(trigger)` arms it once: a request that contains `trigger` is still
    delivered, but its answer is swallowed and the connection is reset."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._trigger: bytes | None = None
        self._on_cut: Callable[[], None] = lambda: None
        self.cuts = 0
        self.port = 0

    def cut_after(self, trigger: bytes, on_cut: Callable[[], None] = lambda: None) -> None:
        self._trigger = trigger
        self._on_cut = on_cut

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with connected(*self._target, writer) as (server_reader, server_writer):
            cut = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._forward(reader, server_writer, cut))
                group.create_task(self._return(server_reader, writer, cut))

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, cut: asyncio.Event) -> None:
        while data := await reader.read(65536):
            if self._trigger is not None and self._trigger in data:
                self._trigger = None
                self.cuts += 1
                cut.set()
            writer.write(data)
            await writer.drain()
        writer.close()

    async def _return(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, cut: asyncio.Event) -> None:
        while data := await reader.read(65536):
            if cut.is_set():  # the server has answered, so what was asked is done
                self._on_cut()
                writer.transport.abort()
                return
            writer.write(data)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def connected(
    host: str, port: int, client: asyncio.StreamWriter
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to the server on behalf of `client`; both are closed on leaving."""
    writers = [client]
    try:
        server_reader, server_writer = await asyncio.open_connection(host, port)
        writers.append(server_writer)
        yield server_reader, server_writer
    finally:
        for each in writers:
            each.transport.abort()
        for each in writers:
            with contextlib.suppress(OSError):
                await each.wait_closed()


@asynccontextmanager
async def listening(converse: Converse) -> AsyncIterator[int]:
    """A free port of 127.0.0.1 at which every connection is a task that runs `converse`; all end on leaving.

    That a connection breaks is no error.
    """
    conversations: set[asyncio.Task[None]] = set()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await converse(reader, writer)
        except* OSError:
            pass

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(run(reader, writer))
        conversations.add(task)
        task.add_done_callback(conversations.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in conversations:
            task.cancel()
        await asyncio.gather(*conversations, return_exceptions=True)


@asynccontextmanager
async def proxy_to(host: str, port: int) -> AsyncIterator[Proxy]:
    proxy = Proxy(host, port)
    async with listening(proxy.converse) as proxy.port:
        yield proxy
