"""Real PostgreSQL and Valkey for every test that asks: one set of servers for each pytest process."""

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from claimsvc import bootstrap
from claimsvc.embedded import EmbeddedServices, PostgresServer, embedded_services, temporary_state_dir
from tests.support.admin import ADMIN_DIGEST
from tests.support.databases import administrate, copy_of
from tests.support.program import Program, Starter
from tests.support.scratch import keep_bytecode, use_memory

_TEMPLATE = "claimsvc_template"


def pytest_configure() -> None:
    """Set up this process, and so those that it starts."""
    use_memory()
    keep_bytecode()
    # Some tests hold a thousand connections at both ends, which is more than an ordinary user's usual limit.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say why tests were tried again, so that nothing is hidden by a second try that held."""
    for report in terminalreporter.stats.get("rerun", ()):
        crash = getattr(report.longrepr, "reprcrash", None)
        why = str(report.longrepr) if crash is None else crash.message
        terminalreporter.write_line(f"tried again: {report.nodeid}: {why[:2000]}")


@pytest.fixture(scope="session")
def services() -> Iterator[EmbeddedServices]:
    """PostgreSQL and three masters, shared by the tests of this process: leave them running and answering.

    A test that stops, pauses or kills servers starts its own with `embedded_services`.
    """
    with temporary_state_dir() as state_dir, embedded_services(state_dir, masters=3, durable=False) as running:
        yield running


@pytest.fixture(scope="session")
def postgres(services: EmbeddedServices) -> PostgresServer:
    """The PostgreSQL of `services`."""
    assert services.postgres is not None
    return services.postgres


@pytest.fixture(scope="session")
def template_database(postgres: PostgresServer) -> str:
    """The name of a database with the current schema and no rows, which new ones are copied from."""
    administrate(postgres.url_of("postgres"), f"CREATE DATABASE {_TEMPLATE}")
    bootstrap.migrate(postgres.url_of(_TEMPLATE))
    return _TEMPLATE


@pytest.fixture
def database_url(postgres: PostgresServer, template_database: str) -> Iterator[str]:
    """A migrated, empty database for this test alone."""
    with copy_of(postgres, template_database) as url:
        yield url


@pytest.fixture
def redis_urls(services: EmbeddedServices) -> tuple[str, ...]:
    """The three shared masters, emptied."""
    for url in services.redis_urls:
        with redis.Redis.from_url(url) as master:
            master.flushall()
    return services.redis_urls


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    """Starts `claimsvc` with arguments and variables; whatever still runs afterwards is killed."""
    running: list[Program] = []

    def start_one(*arguments: str, **variables: str) -> Program:
        folder = tmp_path / f"program-{len(running)}"
        folder.mkdir()
        running.append(Program(folder, arguments, variables))
        return running[-1]

    yield start_one
    for program in running:
        program.process.kill()
        program.process.wait()


@pytest.fixture
def served(database_url: str, redis_urls: tuple[str, ...]) -> dict[str, str]:
    """Settings under which `serve` starts, on a migrated database; a signal cuts no request short."""
    return {
        "CLAIMSVC_DATABASE_URL": database_url,
        "CLAIMSVC_REDIS_URLS": ",".join(redis_urls),
        "CLAIMSVC_ADMIN_KEYS": ADMIN_DIGEST,
        "CLAIMSVC_PORT": "0",
        "CLAIMSVC_LOG_FORMAT": "json",
    }
