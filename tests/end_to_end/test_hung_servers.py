"""Servers that hang before anything runs on them: every command, and the service itself, gives up in time."""

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import psycopg
import pytest

from claimsvc import bootstrap
from claimsvc.embedded import EmbeddedServices, embedded_services, temporary_state_dir
from claimsvc.server.worker import START_SECONDS
from tests.support.program import DEADLINE_SECONDS, claimsvc, environment

pytestmark = pytest.mark.slow

# A few limits one after the other, and the start of Python on a busy machine.
_SOON_SECONDS = 25.0
_JOBS = [("reconcile",), ("sweep",), ("purge",)]
_COMMANDS = [("coupon", "list"), ("coupon", "create", "spring", "--amount", "1"), ("reconcile",)]


@pytest.fixture(scope="module")
def servers() -> Iterator[EmbeddedServices]:
    """Servers that these tests may pause."""
    with temporary_state_dir() as state, embedded_services(state, masters=3, durable=False) as running:
        assert running.postgres is not None
        bootstrap.migrate(running.postgres.url_of("postgres"))
        yield running


@pytest.fixture
def settings(servers: EmbeddedServices) -> dict[str, str]:
    assert servers.postgres is not None
    return {
        "CLAIMSVC_DATABASE_URL": servers.postgres.url_of("postgres"),
        "CLAIMSVC_REDIS_URLS": ",".join(servers.redis_urls),
        "CLAIMSVC_PORT": "0",
        "CLAIMSVC_DATABASE_CONNECT_TIMEOUT_SECONDS": "2",
        "CLAIMSVC_DATABASE_LOCK_TIMEOUT_SECONDS": "0.5",
    }


@contextmanager
def hung(servers: EmbeddedServices, *, masters: bool = False) -> Iterator[None]:
    """PostgreSQL, or a majority of the masters, hangs: it takes connections and says nothing."""
    assert servers.postgres is not None
    with ExitStack() as stack:
        for server in servers.masters[:2] if masters else [servers.postgres]:
            server.pause()
            stack.callback(server.resume)
        yield


def fails_soon(command: tuple[str, ...], settings: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    started = time.monotonic()
    told = claimsvc(*command, **settings)
    assert time.monotonic() - started < _SOON_SECONDS
    assert "error:" in told.stderr
    assert "Traceback" not in told.stderr
    return told


@pytest.mark.parametrize("command", [*_COMMANDS, ("sweep",), ("purge",), ("serve",)], ids=" ".join)
def test_a_postgresql_that_hangs_is_given_up_on_as_one_that_cannot_be_reached(
    servers: EmbeddedServices, settings: dict[str, str], command: tuple[str, ...]
) -> None:
    with hung(servers):
        told = fails_soon(command, settings)
    assert told.returncode == 78
    assert "CLAIMSVC_DATABASE_URL" in told.stderr


@pytest.mark.parametrize("command", [*_JOBS, ("serve",)], ids=" ".join)
def test_masters_that_hang_are_given_up_on_as_those_that_cannot_be_reached(
    servers: EmbeddedServices, settings: dict[str, str], command: tuple[str, ...]
) -> None:
    with hung(servers, masters=True):
        told = fails_soon(command, settings)
    assert told.returncode == 78
    assert "CLAIMSVC_REDIS_URLS" in told.stderr


@pytest.mark.parametrize("command", _COMMANDS, ids=" ".join)
def test_a_statement_that_hangs_is_a_failure_of_the_command(settings: dict[str, str], command: tuple[str, ...]) -> None:
    with psycopg.connect(settings["CLAIMSVC_DATABASE_URL"]) as other:
        other.execute("LOCK TABLE coupons IN ACCESS EXCLUSIVE MODE")
        told = fails_soon(command, settings)
    assert told.returncode == 1


def test_a_minority_of_the_masters_that_hangs_keeps_nobody_from_reconciling(
    servers: EmbeddedServices, settings: dict[str, str]
) -> None:
    servers.masters[0].pause()
    try:
        told = claimsvc("reconcile", **settings)
    finally:
        servers.masters[0].resume()
    assert told.returncode == 0, told.stderr


_START = """
from claimsvc import logs
from claimsvc.config import load_settings
from claimsvc.server.process import listen, run
from claimsvc.server.worker import serve_worker

logs.configure("info", "json")
raise SystemExit(run(serve_worker(load_settings(), listen("127.0.0.1", 0), start_seconds=1.0)))
"""


def test_a_service_that_cannot_be_started_in_time_ends_whatever_it_waits_for(
    servers: EmbeddedServices, settings: dict[str, str]
) -> None:
    """Each step has a limit of its own; here one is longer than that over all of them."""
    assert START_SECONDS == 30.0, "docs/operations.md says so"
    patient = settings | {"CLAIMSVC_DATABASE_CONNECT_TIMEOUT_SECONDS": "60"}
    started = time.monotonic()
    with hung(servers):
        told = subprocess.run(
            [sys.executable, "-c", _START],
            env=environment(patient),
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
            check=False,
        )
    assert told.returncode == 1
    assert "could not be started in time" in told.stderr
    assert 1.0 <= time.monotonic() - started < _SOON_SECONDS
