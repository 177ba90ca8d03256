"""Viewers of the console, as cheap as can be: they count pictures, and throw them away.

A program: `python -m tests.bench.viewers PORT COUNT` says `ready` once all of them have had a picture, and when its
standard input ends how many pictures a second each has had since.
"""

import asyncio
import sys
import time

import uvloop

_REQUEST = b"GET /console/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n"
_PICTURE = b"event: picture"


class Viewer(asyncio.Protocol):
    """One connection. A picture whose first words are split between two pieces is not counted; few are."""

    def __init__(self) -> None:
        self.pictures = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(_REQUEST)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self.pictures += data.count(_PICTURE)


async def watch(port: int, count: int) -> None:
    """Watch until standard input ends."""
    loop = asyncio.get_running_loop()
    viewers = [(await loop.create_connection(Viewer, "127.0.0.1", port))[1] for _ in range(count)]
    while not all(viewer.pictures for viewer in viewers):
        await asyncio.sleep(0.02)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    before, started = sum(viewer.pictures for viewer in viewers), time.perf_counter()
    await loop.run_in_executor(None, sys.stdin.read)
    pictures = sum(viewer.pictures for viewer in viewers) - before
    sys.stdout.write(f"{pictures / count / (time.perf_counter() - started):.3f}\n")


if __name__ == "__main__":
    uvloop.run(watch(int(sys.argv[1]), int(sys.argv[2])))
