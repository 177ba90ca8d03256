"""Starts and stops real PostgreSQL and Valkey servers, for `make run` and the tests.

The programs come from PyPI wheels (`claimsvc[embedded]`), or else from the system. Every server runs under a guard, so
that none outlives this process, however it ends. Data stays in a state folder between runs; ports are chosen at each.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from claimsvc.embedded.account import current_account
from claimsvc.embedded.postgres import PostgresServer
from claimsvc.embedded.process import GuardedProcess
from claimsvc.embedded.programs import find_postgres, find_valkey
from claimsvc.embedded.servers import Server, free_port
from claimsvc.embedded.state import default_state_dir, open_state_dir, temporary_state_dir, write_private
from claimsvc.embedded.valkey import ValkeyServer

__all__ = [
    "EmbeddedServices",
    "GuardedProcess",
    "PostgresServer",
    "Server",
    "ValkeyServer",
    "current_account",
    "default_state_dir",
    "embedded_services",
    "free_port",
    "temporary_state_dir",
    "write_private",
]


@dataclass(frozen=True, slots=True)
class EmbeddedServices:
    """The running servers. `postgres` is None and `masters` is empty if configured servers are used instead."""

    state_dir: Path
    database_url: str
    redis_urls: tuple[str, ...]
    postgres: PostgresServer | None
    masters: tuple[ValkeyServer, ...]


@contextmanager
def embedded_services(
    state_dir: Path,
    *,
    masters: int = 3,
    durable: bool = True,
    fresh: bool = False,
    database_url: str | None = None,
    redis_urls: Sequence[str] = (),
    report: Callable[[str], None] = lambda _: None,
) -> Iterator[EmbeddedServices]:
    """Start the servers that are not configured, and stop them on leaving.

    Args:
        state_dir: where data is kept between runs; created if missing, and locked against a second run.
        masters: number of Valkey masters to start.
        durable: whether a commit survives a crash of the machine; tests turn it off for speed.
        fresh: delete the data of earlier runs.
        database_url: a PostgreSQL to use instead of starting one.
        redis_urls: masters to use instead of starting any.
        report: receives a short text for each step.

    Raises:
        EmbeddedServiceError: a server cannot be started; the message says what to do.
    """
    with ExitStack() as stack:
        state = stack.enter_context(open_state_dir(state_dir, fresh=fresh))
        servers: list[Server] = []
        postgres = None
        if database_url is None:
            programs = find_postgres(state)
            report(f"Starting PostgreSQL {programs.version}")
            postgres = PostgresServer(state, programs, durable=durable)
            servers.append(postgres)
        valkeys: list[ValkeyServer] = []
        if not redis_urls and masters:
            program = find_valkey(state)
            report(f"Starting {masters} {program.name} {program.version} masters")
            valkeys = [ValkeyServer(state, program, number + 1, durable=durable) for number in range(masters)]
            servers.extend(valkeys)
        for server in servers:
            stack.callback(server.stop)
            server.begin_start()
        for server in servers:
            server.finish_start()
        yield EmbeddedServices(
            state_dir=state.path,
            database_url=postgres.url if postgres is not None else database_url or "",
            redis_urls=tuple(server.url for server in valkeys) or tuple(redis_urls),
            postgres=postgres,
            masters=tuple(valkeys),
        )
