"""A claim that needs no task of its own is answered as any other, and is not lost with its connection."""

import asyncio

import pytest

from claimsvc.domain import ClaimOutcome
from tests.http.gated import EXPRESS, ORDINARY, claim_of, claim_request, gated, get, read_answer
from tests.http.memory_services import Service
from tests.support.waiting import until


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"user_id":"%s","coupon_name":"plenty"}', 201),
        (b'{"user_id":"ada","coupon_name":"last"}', 409),
        (b'{"user_id":"%s","coupon_name":"last"}', 409),
        (b'{"user_id":"%s","coupon_name":"nothing"}', 404),
        (b'{"user_id":"%s","coupon_name":"plenty","coupon_name":"last"}', 400),
        (b'{"user_id":5,"coupon_name":"plenty"}', 400),
        (b'{"user_id":"a b","coupon_name":"plenty"}', 400),
        (b'{"user_id":"%s"}', 400),
        (b'{"user_id":"%s","coupon_name":"plenty","type":"welcome"}', 400),
        (b'{"user_id":"%s","coupon_name":"plenty","type":null}', 400),
        (b'{"user_id":"%s","type":null}', 201),
        (b'{"user_id":"%s"', 400),
        (b"", 400),
    ],
)
async def test_it_is_answered_as_on_the_ordinary_way(service: Service, body: bytes, status: int) -> None:
    await service.store.claim_unit("last", "ada")
    answers = []
    for content_type in (EXPRESS, ORDINARY):
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(
            claim_request(body.replace(b"%s", content_type[-4:].encode()), content_type, "X-Request-ID: mine\r\n")
        )
        answers.append(await read_answer(reader))
        writer.close()
    express, ordinary = answers
    assert express.status == ordinary.status == status
    assert express.headers.keys() == ordinary.headers.keys()
    for own in ("Date", "Location"):
        for each in answers:
            each.headers.pop(own, None)
    if status == 201:
        assert express.body.keys() == ordinary.body.keys()
    else:
        assert express.headers == ordinary.headers
        assert express.body == ordinary.body
    [one, other] = [line for line in service.lines if line["event"] == "request"]
    assert one.keys() == other.keys()
    assert [(line["route"], line["status"], line["request_id"]) for line in (one, other)] == [
        ("/api/coupons/claim", status, "mine")
    ] * 2


async def test_requests_of_one_connection_are_answered_in_their_order(service: Service) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    requests = [
        claim_of("a"),
        get("/livez"),
        claim_of("b", content_type=ORDINARY),
        claim_of("c"),
        get("/api/coupons/last"),
    ]
    # In one piece, and in pieces that end anywhere.
    for pieces in (
        [b"".join(requests)],
        [b"".join(requests)[i : i + 37] for i in range(0, len(b"".join(requests)), 37)],
    ):
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0.001)
        answers = [await read_answer(reader) for _ in requests]
        assert [
            answer.body.get("user_id") or answer.body.get("status") or answer.body.get("name") for answer in answers
        ] in (
            ["a", "ok", "b", "c", "last"],
            [409, "ok", 409, 409, "last"],
        )
    writer.close()


async def test_a_request_behind_a_claim_that_takes_long_waits_for_it() -> None:
    async with gated(header_timeout_seconds=0.3) as service:
        # The beginning of a head alone is no head that is late, while another request is being answered.
        reader, writer = await service.claim(claim_of("ada"), get("/livez")[:10])
        await asyncio.sleep(0.5)
        writer.write(get("/livez")[10:] + claim_of("ben"))
        service.store.open.set()
        assert [(await read_answer(reader)).status for _ in range(3)] == [201, 200, 201]
        writer.close()


async def test_a_claim_whose_client_hangs_up_is_made_and_counted() -> None:
    async with gated() as service:
        _, writer = await service.claim(claim_of("ada"))
        writer.transport.abort()
        await until(lambda: not service.server.connections, "the server knows that it is gone")
        service.store.open.set()
        await until(lambda: service.observations.seen, "the claim is counted")
    assert service.observations.seen == [("POST", "/api/coupons/claim", 201)]
    assert service.claimants() == ["ada"]


async def test_a_server_that_stops_answers_the_claim_that_it_has_accepted_and_says_that_it_closes() -> None:
    async with gated() as service:
        reader, writer = await service.claim(claim_of("ada"))
        asyncio.get_running_loop().call_later(0.2, service.store.open.set)
    answer = await read_answer(reader)
    assert (answer.status, answer.headers["Connection"]) == (201, "close")
    assert await reader.read() == b""
    writer.close()


async def test_an_answer_that_cannot_be_made_ends_the_connection_and_no_other(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    with monkeypatch.context() as patch:
        patch.setattr("claimsvc.http.resources.claims.routes.created", broken)
        writer.write(claim_of("ada"))
        assert await asyncio.wait_for(reader.read(), 20) == b""
    writer.close()
    assert await service.is_healthy()


async def test_a_claim_whose_answer_is_cancelled_is_unavailable_and_no_defect(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever ends our tasks was not asked to by the client, to whom the same claim again tells the outcome."""

    async def cancelled(coupon_name: str, user_id: str) -> ClaimOutcome:
        raise asyncio.CancelledError

    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    with monkeypatch.context() as patch:
        patch.setattr(service.store, "claim_unit", cancelled)
        writer.write(claim_of("ada"))
        answer = await read_answer(reader)
    assert (answer.status, answer.body["type"]) == (503, "/problems/unavailable")
    assert answer.headers["Retry-After"]
    [line] = [line for line in service.lines if line["event"] == "request"]
    assert (line["status"], line["log_level"]) == (503, "warning")
    writer.write(claim_of("ada"))
    assert (await read_answer(reader)).status == 201
    writer.close()


async def test_a_connection_at_rest_ends_at_its_limit_and_one_at_work_does_not() -> None:
    """A claim under way is work, however long it takes and though no task of aiohttp's is at it."""
    loop = asyncio.get_running_loop()
    async with gated(header_timeout_seconds=5, keepalive_seconds=1.0) as service:
        reader, writer = await service.claim(claim_of("ada"))
        await asyncio.sleep(1.5)
        service.store.open.set()
        assert (await read_answer(reader)).status == 201
        for request in (claim_of("ben"), get("/livez"), claim_of("cleo"), get("/livez")):
            await asyncio.sleep(0.3)  # in all longer than its limit, which begins anew with each
            writer.write(request)
            assert (await read_answer(reader)).status in (200, 201)
        answered_at = loop.time()
        async with asyncio.timeout(10):
            assert await reader.read() == b""
        assert loop.time() - answered_at >= 0.8
        assert not service.server.connections
        writer.close()
