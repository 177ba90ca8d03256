"""What waits for its turn, to begin or to be answered, is not lost when its connection or the server ends."""

import asyncio
import gc
import logging
from collections.abc import Callable

import pytest

from claimsvc.http.server import fair_queue
from claimsvc.http.server.connection import HttpConnection
from tests.http.gated import Connection, Gated, claim_of, gated, read_answer
from tests.support.waiting import until


def _reset(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


def _hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()


def connections_in_memory() -> int:
    gc.collect()
    return sum(type(each) is HttpConnection for each in gc.get_objects())


@pytest.mark.parametrize("end", [_reset, _hang_up])
async def test_a_claim_whose_connection_ends_while_it_waits_for_its_turn_is_not_made(
    end: Callable[[asyncio.StreamWriter], None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing of it was begun, so nothing of it is left: no claim, no line, no connection, no error."""
    before = connections_in_memory()
    monkeypatch.setattr(fair_queue, "_PER_TURN", 0)  # nobody gets a turn for now
    async with gated() as service:
        service.store.open.set()
        _, writer = await service.claim_in_line("ada")
        assert connections_in_memory() == before + 1
        end(writer)
        await until(lambda: not service.server.connections, "the server knows that it is gone")
        monkeypatch.setattr(fair_queue, "_PER_TURN", 8)
        # Its turn comes, and is nobody's; then that of the next.
        other_reader, other_writer = await service.claim(claim_of("ben"))
        assert (await read_answer(other_reader)).status == 201
        other_writer.close()
    assert connections_in_memory() == before
    assert service.claimants() == ["ben"]
    assert service.observations.seen == [("POST", "/api/coupons/claim", 201)]
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_server_that_stops_answers_the_claim_that_still_waits_for_its_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fair_queue, "_PER_TURN", 0)
    async with gated() as service:
        service.store.open.set()
        reader, writer = await service.claim_in_line("ada")
        asyncio.get_running_loop().call_later(0.2, monkeypatch.setattr, fair_queue, "_PER_TURN", 8)
    answer = await read_answer(reader)
    assert (answer.status, answer.headers["Connection"]) == (201, "close")
    assert service.claimants() == ["ada"]
    writer.close()


async def answer_in_line(service: Gated, monkeypatch: pytest.MonkeyPatch) -> Connection:
    """A claim that is made, and whose answer waits in line for its turn."""
    connection = await service.claim(claim_of("ada"))
    monkeypatch.setattr(fair_queue, "_PER_TURN", 0)
    while service.turnstile().is_free("another address"):
        pass
    service.store.open.set()
    await until(lambda: bool(service.in_line()), "the answer waits for its turn")
    assert service.claimants() == ["ada"]
    return connection


@pytest.mark.parametrize("end", [_reset, _hang_up])
async def test_a_claim_whose_connection_ends_while_its_answer_waits_for_its_turn_stands(
    end: Callable[[asyncio.StreamWriter], None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = connections_in_memory()
    monkeypatch.setattr(fair_queue, "_RECENT_SECONDS", 60)
    async with gated() as service:
        _, writer = await answer_in_line(service, monkeypatch)
        end(writer)
        await until(lambda: not service.server.connections, "the server knows that it is gone")
        monkeypatch.setattr(fair_queue, "_PER_TURN", 8)
        await until(lambda: bool(service.observations.seen), "the claim is counted")
        # Whoever comes next over another connection is told so.
        reader, writer = await service.claim(claim_of("ada"))
        assert (await read_answer(reader)).status == 409
        writer.close()
    assert connections_in_memory() == before
    assert [status for *_, status in service.observations.seen] == [201, 409]
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_server_that_stops_gives_the_answer_that_still_waits_for_its_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fair_queue, "_RECENT_SECONDS", 60)
    async with gated() as service:
        reader, writer = await answer_in_line(service, monkeypatch)
        asyncio.get_running_loop().call_later(0.2, monkeypatch.setattr, fair_queue, "_PER_TURN", 8)
    answer = await read_answer(reader)
    assert (answer.status, answer.headers["Connection"]) == (201, "close")
    writer.close()
