"""A client that floods: as many requests as the service takes, over a few connections or many. Ends with its input."""

import asyncio
import contextlib
import sys

import uvloop

from tests.support.raw_http import request


def _bodies(coupon: str) -> list[bytes]:
    return [f'{{"user_id": "flood-{number}", "coupon_name": "{coupon}"}}'.encode() for number in range(200)]


async def _flood(port: int, source: str, requests: bytes, answered: asyncio.Event) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))

    async def read() -> None:
        with contextlib.suppress(ConnectionError):
            while await reader.read(1 << 16):
                answered.set()

    reading = asyncio.ensure_future(read())
    reading.add_done_callback(lambda _: answered.set())  # a connection may be ended without an answer
    with contextlib.suppress(ConnectionError):
        while not reading.done():
            writer.write(requests)
            await writer.drain()
    writer.transport.abort()


async def main(port: int, source: str, connections: int, coupon: str) -> None:
    """Flood from one address until the standard input ends."""
    requests = b"".join(request("POST", "/api/coupons/claim", body) for body in _bodies(coupon))
    answered = [asyncio.Event() for _ in range(connections)]
    flooding = [asyncio.ensure_future(_flood(port, source, requests, each)) for each in answered]
    await asyncio.gather(*(each.wait() for each in answered))
    print("flooding", flush=True)  # noqa: T201
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    for each in flooding:
        each.cancel()
    await asyncio.gather(*flooding, return_exceptions=True)


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]))
