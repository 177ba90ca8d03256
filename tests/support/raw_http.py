"""HTTP over raw sockets: what is sent is exactly the bytes given, and what comes back is read strictly."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

PATIENCE_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Answer:
    """One response. Its body has exactly the length that its head announced."""

    status: int
    headers: dict[str, str]
    body: bytes
    problem: dict[str, Any] = field(default_factory=dict)


class Wire:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        """Send bytes as they are. A server that has hung up already is no error here: its answer may be waiting."""
        try:
            self.writer.write(data)
            await self.writer.drain()
        except ConnectionError:
            pass

    async def answer(self) -> Answer | None:
        """The next response; None at the connection's end.

        Raises:
            AssertionError: what came is not a response.
        """
        async with asyncio.timeout(PATIENCE_SECONDS):
            try:
                head = await self.reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError as end:
                if end.partial:
                    raise AssertionError(f"neither an answer nor the end: {end.partial!r}") from end
                return None
            status_line, *lines = head.decode("ascii").removesuffix("\r\n\r\n").split("\r\n")
            status = re.fullmatch(r"HTTP/1\.([01]) (\d{3}) [A-Za-z -]+", status_line)
            assert status, status_line
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            assert len(headers) == len(lines), f"a header is repeated: {lines}"
            body = await self.reader.readexactly(int(headers["content-length"]))
        if status[1] == "0":  # which ends the connection without saying so
            headers.setdefault("connection", "close")
        is_problem = headers.get("content-type") == "application/problem+json"
        return Answer(int(status[2]), headers, body, json.loads(body) if is_problem else {})

    async def answers(self) -> list[Answer]:
        """Every response until the connection's end."""
        found = []
        while answer := await self.answer():
            found.append(answer)
        return found

    async def is_closed_after_answer(self, seconds: float = PATIENCE_SECONDS) -> bool:
        """Wait for the server to end the connection; whether it said anything before."""
        async with asyncio.timeout(seconds):
            try:
                return await self.reader.read() != b""
            except ConnectionError:
                return True


@asynccontextmanager
async def connected(port: int, *, source: str = "127.0.0.1") -> AsyncIterator[Wire]:
    """A connection from the address `source`; cut off on leaving."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
    try:
        yield Wire(reader, writer)
    finally:
        writer.transport.abort()


def request(
    method: str = "GET",
    target: bytes | str = "/livez",
    body: bytes | None = None,
    *,
    content_type: str | None = "application/json",
    **headers: str,
) -> bytes:
    """A request; header names are given with `_` for `-`, and win over the usual ones."""
    lines = {"Host": "x"}
    if body is not None:
        lines["Content-Length"] = str(len(body))
        if content_type is not None:
            lines["Content-Type"] = content_type
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items()).encode()
    raw = target if isinstance(target, bytes) else target.encode()
    return b"%b %b HTTP/1.1\r\n%b\r\n%b" % (method.encode(), raw, head, body or b"")
