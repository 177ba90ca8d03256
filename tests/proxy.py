"""A TCP proxy that breaks a conversation where a test says so: between what was asked and what was answered."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)

Enter = Callable[[], AbstractContextManager[object]]
"""Where a socket is to be made: whatever this enters while it is."""


class Proxy:
    """Forwards bytes both ways. `cut_after(trigger)` arms it once: a request that contains `trigger` is still
    delivered, but its answer is swallowed and the connection is reset.

    `target` may be changed at any time, and holds for connections that are made from then on. `delay_seconds` holds
    back each piece of an answer; while `is_silent`, answers vanish without a word. `cuts`, `delayed` and `swallowed`
    count what was done; `reset()` ends all connections at once.
    """

    def __init__(self, host: str, port: int, enter: Enter = nullcontext) -> None:
        self.target = (host, port)
        self.delay_seconds = 0.0
        self.is_silent = False
        self.cuts = self.delayed = self.swallowed = 0
        self.port = 0
        self._enter = enter
        self._trigger: bytes | None = None
        self._on_cut: Callable[[], None] = lambda: None
        self._writers: set[asyncio.StreamWriter] = set()

    def cut_after(self, trigger: bytes, on_cut: Callable[[], None] = lambda: None) -> None:
        self._trigger = trigger
        self._on_cut = on_cut

    def reset(self) -> int:
        """Reset every connection, both ends. Returns how many there were."""
        count = len(self._writers)
        for writer in self._writers:
            with contextlib.suppress(OSError, ValueError):  # it is being closed already
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            writer.transport.abort()
        return count

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        try:
            server_reader, server_writer = await self._connect()
            writers.append(server_writer)
            self._writers.add(writer)
            cut = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._forward(reader, server_writer, cut))
                group.create_task(self._return(server_reader, writer, cut))
        except* (OSError, RuntimeError):  # the latter is how uvloop calls a connection that is gone
            pass
        finally:
            self._writers.discard(writer)
            for each in writers:
                each.transport.abort()
            for each in writers:
                with contextlib.suppress(OSError):
                    await each.wait_closed()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        with self._enter():
            ours = socket.socket()
        try:
            ours.setblocking(False)
            await asyncio.get_running_loop().sock_connect(ours, self.target)
            return await asyncio.open_connection(sock=ours)
        except BaseException:
            ours.close()
            raise

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
    conversations: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(proxy.converse(reader, writer))
        conversations.add(task)
        task.add_done_callback(conversations.discard)

    server = await asyncio.start_server(accept, sock=listener or socket.create_server(("127.0.0.1", 0)))
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        for task in conversations:
            task.cancel()
        await asyncio.gather(*conversations, return_exceptions=True)
