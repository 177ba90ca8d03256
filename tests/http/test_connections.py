"""What only a connection shows, and what is unusual but right. Bad input has a table in tests/faults/hostile."""

import asyncio
import gzip

import pytest

from tests.http.memory_services import Service
from tests.support.raw_http import connected, request

JSON = "application/json"
CLAIM = b'{"user_id": "ann", "coupon_name": "plenty"}'
CLAIM_HEAD = b"POST /api/coupons/claim HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


async def status_of(service: Service, body: bytes, **headers: str) -> int:
    """Post a claim over a connection of its own."""
    async with connected(service.port) as wire:
        await wire.send(request("POST", "/api/coupons/claim", body, **headers))
        answer = await wire.answer()
        assert answer is not None
        return answer.status


async def test_a_chunk_that_turns_out_malformed_is_refused_at_once(service: Service) -> None:
    """The request is waiting for its body already when the error is found; it is not left to its time limit."""
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(CLAIM_HEAD + b"Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n")
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"zz\r\n")
    raw = await reader.read()
    writer.close()
    assert raw.startswith(b"HTTP/1.1 400 ")
    assert [line["status"] for line in service.lines] == [400]
    assert await service.is_healthy()


async def test_a_body_that_breaks_off_is_refused(service: Service) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(CLAIM_HEAD + b"Content-Length: 43\r\n\r\n" + CLAIM[:10])
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert await service.is_healthy()
    assert (await service.store.coupon("plenty", claimants=10)).claimed_by != ("ann",)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "content_type",
    [JSON, "Application/JSON", f"{JSON};charset=UTF-8", f'{JSON}; charset="utf-8"', "application/merge-patch+json"],
)
async def test_json_in_utf_8_is_taken_however_it_is_spelt(service: Service, content_type: str) -> None:
    assert await status_of(service, CLAIM, content_type=content_type) == 201


async def test_a_gzip_body_is_taken(service: Service) -> None:
    assert await status_of(service, gzip.compress(CLAIM), Content_Encoding="gzip") == 201


async def test_a_body_of_exactly_the_limit_is_taken(service: Service) -> None:
    assert await status_of(service, CLAIM + b" " * (65_536 - len(CLAIM))) == 201


async def test_headers_that_stall_after_a_good_request_are_not_waited_for(service: Service) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
    await reader.readuntil(b'{"status":"ok"}')
    writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-A: ")
    assert b" 408 " in await reader.read()
    writer.close()


async def test_requests_behind_a_declined_upgrade_are_answered(service: Service) -> None:
    """aiohttp keeps what follows an upgrade aside and reads it later, by another way than what follows a request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    upgrade = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    writer.write(upgrade + b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\nGET /li")
    for _ in range(2):
        await reader.readuntil(b'{"status":"ok"}')
    writer.write(b"vez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert (await reader.read()).endswith(b'{"status":"ok"}')
    writer.close()
    assert [line["status"] for line in service.lines] == [200] * 3


async def test_a_connection_whose_body_was_not_wanted_may_rest(service: Service) -> None:
    """A body that is thrown away is not taken for a head that stalls."""
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(b"POST /no/such HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345")
    await reader.readuntil(b"}")
    writer.write(b"67890")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.5)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert (await reader.read()).endswith(b'{"status":"ok"}')
    writer.close()
    assert [line["status"] for line in service.lines] == [404, 200]


async def test_a_connection_that_says_nothing_is_closed_without_an_answer(service: Service) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    assert await reader.read() == b""
    writer.close()
    assert service.lines == []
