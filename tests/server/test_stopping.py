"""What becomes of requests and connections when the service is told to stop."""

import contextlib
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.support.admin import ADMIN_KEY
from tests.support.program import DEADLINE_SECONDS, Program, Starter, address, call, listens


def resting(url: str) -> HTTPConnection:
    """A connection that has been used, and may be used again."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    assert ask(connection) == (200, None)
    return connection


def ask(connection: HTTPConnection) -> tuple[int, str | None]:
    """The status, and what the answer says of the connection."""
    connection.request("GET", "/livez")
    answer = connection.getresponse()
    answer.read()
    return answer.status, answer.headers["Connection"]


def told_to_stop(program: Program, url: str) -> None:
    program.process.send_signal(signal.SIGTERM)
    program.eventually(lambda: not listens(url))


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_connection_at_rest_is_kept_for_the_drain_notice_and_ends_it_with_its_next_request(
    start: Starter, served: dict[str, str], workers: str
) -> None:
    served |= {"CLAIMSVC_SHUTDOWN_DRAIN_NOTICE_SECONDS": "50", "CLAIMSVC_SHUTDOWN_GRACE_SECONDS": "0.5"}
    program = start("serve", "--workers", workers, **served)
    url = address(program)
    with contextlib.closing(resting(url)) as connection:
        began = time.monotonic()
        told_to_stop(program, url)
        assert ask(connection) == (200, "close")
    assert program.process.wait(60) == 0
    assert time.monotonic() - began < 50, "nobody rested any more, and it waited"


@pytest.mark.slow
def test_the_drain_notice_has_an_end(start: Starter, served: dict[str, str]) -> None:
    """It may be longer than the grace and what comes after that: its time is its own."""
    program = start(
        "serve", **served, CLAIMSVC_SHUTDOWN_DRAIN_NOTICE_SECONDS="12", CLAIMSVC_SHUTDOWN_GRACE_SECONDS="0.5"
    )
    with contextlib.closing(resting(address(program))):
        began = time.monotonic()
        assert program.end(signal.SIGTERM) == 0
        assert time.monotonic() - began >= 12


def test_without_a_drain_notice_connections_at_rest_are_ended_at_once(start: Starter, served: dict[str, str]) -> None:
    program = start("serve", **served, CLAIMSVC_SHUTDOWN_DRAIN_NOTICE_SECONDS="0")
    url = address(program)
    with contextlib.closing(resting(url)) as connection:
        began = time.monotonic()
        assert program.end(signal.SIGTERM) == 0
        assert time.monotonic() - began < 30
        with pytest.raises(OSError):  # noqa: PT011 - a reset, a broken pipe or an end, as it happens
            ask(connection)


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_closes_the_listener_and_lets_accepted_requests_finish(
    start: Starter, served: dict[str, str], database_url: str, workers: str, number: signal.Signals
) -> None:
    patience = {f"CLAIMSVC_DATABASE_{what}_TIMEOUT_SECONDS": "30" for what in ("LOCK", "STATEMENT")}
    program = start("serve", "--workers", workers, **served, **patience)
    url = address(program)
    program.eventually(lambda: program.count("serving") == int(workers))
    assert call(url, "POST", "/api/coupons", {"name": "c", "amount": 1}, ADMIN_KEY)[0] == 201
    claim = {"user_id": "u", "coupon_name": "c"}
    with psycopg.connect(database_url) as holder, ThreadPoolExecutor() as clients:
        holder.execute("SELECT FROM coupons WHERE name = 'c' FOR UPDATE")
        answer = clients.submit(call, url, "POST", "/api/coupons/claim", claim)
        program.eventually(lambda: waits_for_a_row(database_url))
        program.process.send_signal(number)
        program.process.send_signal(number)  # as when a terminal and `make` both pass it on
        program.eventually(lambda: not listens(url))
        assert not answer.done()
        holder.rollback()
        assert answer.result()[0] == 201
    assert program.process.wait(DEADLINE_SECONDS) == 0


@pytest.mark.slow
def test_a_request_that_does_not_end_cannot_keep_the_process(
    start: Starter, served: dict[str, str], database_url: str
) -> None:
    patience = {f"CLAIMSVC_DATABASE_{what}_TIMEOUT_SECONDS": "60" for what in ("LOCK", "STATEMENT")}
    program = start("serve", **served, **patience, CLAIMSVC_SHUTDOWN_GRACE_SECONDS="0.5")
    url = address(program)
    assert call(url, "POST", "/api/coupons", {"name": "c", "amount": 1}, ADMIN_KEY)[0] == 201
    claim = {"user_id": "u", "coupon_name": "c"}
    with psycopg.connect(database_url) as holder, ThreadPoolExecutor() as clients:
        holder.execute("SELECT FROM coupons WHERE name = 'c' FOR UPDATE")
        answer = clients.submit(call, url, "POST", "/api/coupons/claim", claim)
        program.eventually(lambda: waits_for_a_row(database_url))
        started = time.monotonic()
        assert program.end(signal.SIGTERM) == 1
        assert time.monotonic() - started < 30
        assert answer.exception() is not None


def waits_for_a_row(database_url: str) -> bool:
    with psycopg.connect(database_url) as connection:
        waiting = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        return connection.execute(waiting).fetchone() is not None
