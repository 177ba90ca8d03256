"""A standby of a PostgreSQL, to which every commit is replicated before it is answered."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from claimsvc.embedded import EmbeddedServices, PostgresServer, write_private
from claimsvc.embedded.programs import find_postgres
from claimsvc.embedded.state import open_state_dir
from tests.support.injectors.postgres import connect, number
from tests.support.waiting import block_until


@contextmanager
def standby_of(services: EmbeddedServices, folder: Path) -> Iterator[PostgresServer]:
    """Start a standby of the embedded PostgreSQL, and have the primary wait for it at each commit, until this is left.

    Args:
        folder: a new one, which the servers can reach, for the standby's data.
    """
    assert services.postgres is not None
    primary = urlsplit(services.postgres.url)
    with open_state_dir(folder) as state:
        programs = find_postgres(state)
        home = state.server_folder("postgres")
        write_private(home / "password", f"{primary.password}\n")
        state.account.own(home / "password")
        subprocess.run(
            [
                *(programs.postgres.with_name("pg_basebackup"), "--pgdata", home / "data", "--write-recovery-conf"),
                *("--host", primary.hostname or "", "--port", str(primary.port), "--username", primary.username or ""),
                *("--checkpoint=fast", "--no-sync", "--wal-method=stream"),
            ],
            env={**os.environ, "PGPASSWORD": primary.password or ""},
            cwd=home,
            check=True,
            **state.account.popen_arguments(),
        )
        standby = PostgresServer(state, programs, durable=False)
        try:
            standby.start()
            url = services.postgres.url
            with connect(url) as session:
                session.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
                # Said for the user, because what an embedded server's command line says is stronger than its files.
                session.execute("ALTER USER claimsvc SET synchronous_commit = 'on'")
                session.execute("SELECT pg_reload_conf()")
            replicated = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
            block_until(lambda: number(url, replicated) == 1, "the standby is synchronous")
            yield standby
        finally:
            standby.stop()
            if services.postgres.running:
                with connect(services.postgres.url) as session:
                    session.execute("ALTER SYSTEM RESET synchronous_standby_names")
                    session.execute("SELECT pg_reload_conf()")


def promote(standby: PostgresServer) -> None:
    """Make it a primary; returns when it takes writes."""
    with connect(standby.url) as session:
        session.execute("SELECT pg_promote()")
        assert session.execute("SELECT pg_is_in_recovery()").fetchone() == (False,)
