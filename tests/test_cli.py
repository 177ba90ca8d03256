"""The command line, as real processes: what it prints, what it returns, and what it leaves behind."""

import contextlib
import hashlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from claimsvc.embedded import PostgresServer, temporary_state_dir
from tests.waiting import block_until

CLAIMSVC = (sys.executable, "-m", "claimsvc")
DEADLINE_SECONDS = 60.0
ADMIN_KEY = "a-key-of-the-tests"
ADMIN_DIGEST = hashlib.sha256(ADMIN_KEY.encode()).hexdigest()


class Program:
    """A running `claimsvc`, with what it prints in files, so that no pipe fills up."""

    def __init__(self, folder: Path, arguments: tuple[str, ...], variables: Mapping[str, str]) -> None:
        self._stdout, self._stderr = folder / "stdout", folder / "stderr"
        with self._stdout.open("wb") as stdout, self._stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                [*CLAIMSVC, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env=environment(variables),
                cwd=folder,
            )

    @property
    def stdout(self) -> str:
        return self._stdout.read_text()

    @property
    def stderr(self) -> str:
        return self._stderr.read_text()

    def raw_stderr(self) -> bytes:
        return self._stderr.read_bytes()

    @property
    def events(self) -> list[dict[str, object]]:
        """The log lines."""
        return [json.loads(line) for line in self.stderr.splitlines() if line.startswith("{")]

    def pids_of_workers(self) -> list[int]:
        """Every worker that was started, oldest first."""
        return [int(str(event["pid"])) for event in self.events if event["event"] == "worker started"]

    def count(self, event: str) -> int:
        return sum(1 for line in self.events if line["event"] == event)

    def eventually(self, condition: Callable[[], bool]) -> None:
        try:
            block_until(condition, "it happens", within_seconds=DEADLINE_SECONDS)
        except AssertionError as late:
            late.add_note(f"{self.stdout=} {self.stderr=}")
            raise

    def eventually_prints(self, pattern: str) -> str:
        """Wait for it in what is printed; the result is its first group."""
        found: list[str] = []

        def look() -> bool:
            assert self.process.poll() is None, f"ended too early: {self.stdout=} {self.stderr=}"
            found.extend(re.findall(pattern, self.stdout + self.stderr))
            return bool(found)

        self.eventually(look)
        return found[0]

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_SECONDS)


Starter = Callable[..., Program]


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


@pytest.fixture
def state_dir() -> Iterator[Path]:
    """A state folder that does not exist yet; afterwards nothing may run on it."""
    with temporary_state_dir() as path:
        yield path / "state"
        assert pids_on(path) == []


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    ours = ("CLAIMSVC_", "PORT", "URL", "PROMETHEUS_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, **variables}


def claimsvc(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*CLAIMSVC, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        env=environment(variables),
        check=False,
    )


def call(url: str, method: str, path: str, body: object = None, key: str = "") -> tuple[int, bytes]:
    parts = urlsplit(url)
    with contextlib.closing(http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)) as connection:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, answer.read()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def pids_on(folder: Path) -> list[int]:
    """The processes that work in a folder or name it: every server and guard does."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            named = str(folder).encode() in (process / "cmdline").read_bytes()
            if named or (process / "cwd").readlink().is_relative_to(folder):
                found.append(int(process.name))
    return found


def address(program: Program) -> str:
    return "http://" + program.eventually_prints(r'"address":"([^"]+)"')


@pytest.mark.parametrize(
    "command", [(), ("dev",), ("serve",), ("migrate",), ("coupon",), ("key",), ("locks",), ("doctor",)]
)
def test_every_command_explains_itself(command: tuple[str, ...]) -> None:
    told = claimsvc(*command, "--help")
    assert told.returncode == 0
    assert "Usage: " in told.stdout


def test_the_help_lists_the_exit_statuses() -> None:
    told = " ".join(claimsvc("--help").stdout.split())
    assert "0 done, 1 failed, 2 wrong usage, 78 wrong settings" in told


def test_missing_and_wrong_settings_are_told_a_line_each_with_status_78() -> None:
    told = claimsvc("serve", CLAIMSVC_REDIS_URLS="redis://a,redis://b", CLAIMSVC_WORKERS="many")
    assert told.returncode == 78
    assert "Traceback" not in told.stderr
    for variable in ("CLAIMSVC_DATABASE_URL is not set", "CLAIMSVC_REDIS_URLS: 2 masters", "CLAIMSVC_WORKERS: "):
        assert len([line for line in told.stderr.splitlines() if variable in line]) == 1


@pytest.mark.parametrize("command", [("coupon", "list"), ("migrate",)])
def test_commands_on_the_database_need_no_redis_but_a_database(command: tuple[str, ...]) -> None:
    told = claimsvc(*command)
    assert told.returncode == 78
    assert "CLAIMSVC_DATABASE_URL is not set" in told.stderr
    assert "REDIS" not in told.stderr


@pytest.mark.parametrize("command", [("coupon", "list"), ("migrate",)])
def test_a_database_that_does_not_answer_is_told_without_a_traceback(command: tuple[str, ...]) -> None:
    told = claimsvc(*command, CLAIMSVC_DATABASE_URL="postgresql://nobody:nothing@127.0.0.1:1/none")
    assert told.returncode in (1, 78)
    assert "error:" in told.stderr
    assert "Traceback" not in told.stderr


def test_a_key_is_made_with_the_digest_that_the_service_is_given() -> None:
    first, second = claimsvc("key", "create").stdout, claimsvc("key", "create").stdout
    assert first != second
    key = first.splitlines()[1].strip()
    assert len(key) >= 40
    assert f"CLAIMSVC_ADMIN_KEYS={hashlib.sha256(key.encode()).hexdigest()}" in first


def test_migrate_makes_the_schema_and_may_be_run_again(postgres: PostgresServer) -> None:
    with psycopg.connect(postgres.url_of("postgres"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE bare")
        try:
            url = postgres.url_of("bare")
            before = claimsvc("coupon", "list", CLAIMSVC_DATABASE_URL=url)
            assert before.returncode == 78
            for _ in range(2):
                assert claimsvc("migrate", CLAIMSVC_DATABASE_URL=url).returncode == 0
            assert claimsvc("coupon", "list", CLAIMSVC_DATABASE_URL=url).returncode == 0
        finally:
            connection.execute("DROP DATABASE bare WITH (FORCE)")


def test_migrate_does_not_wait_for_a_table_in_use_and_keep_claims_waiting_behind_it(postgres: PostgresServer) -> None:
    with psycopg.connect(postgres.url_of("postgres"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE in_use")
        try:
            url = postgres.url_of("in_use")
            assert claimsvc("migrate", CLAIMSVC_DATABASE_URL=url).returncode == 0
            with psycopg.connect(url) as user:
                user.execute("UPDATE alembic_version SET version_num = '0001'")
                user.execute("ALTER TABLE coupons DROP COLUMN strategy")
                user.execute("DROP TABLE audit; DROP FUNCTION audit_refuse_change")
                user.commit()
                user.execute("SELECT FROM coupons")  # and stays in its transaction
                started = time.monotonic()
                told = claimsvc("migrate", CLAIMSVC_DATABASE_URL=url)
                assert told.returncode == 1
                assert "lock timeout" in told.stderr
                assert 5 <= time.monotonic() - started < 30
                user.rollback()
                assert claimsvc("migrate", CLAIMSVC_DATABASE_URL=url).returncode == 0
        finally:
            connection.execute("DROP DATABASE in_use WITH (FORCE)")


def test_coupons_are_created_listed_and_shown(database_url: str) -> None:
    def coupon(*arguments: str) -> subprocess.CompletedProcess[str]:
        return claimsvc("coupon", *arguments, CLAIMSVC_DATABASE_URL=database_url)

    assert coupon("create", "summer-1", "--amount", "5").returncode == 0
    assert coupon("create", "winter-1", "--amount", "7").returncode == 0
    again = coupon("create", "summer-1", "--amount", "9")
    assert (again.returncode, "already" in again.stderr) == (1, True)

    listed = json.loads(coupon("list", "--json").stdout)
    assert [(row["name"], row["amount"], row["remaining_amount"]) for row in listed] == [
        ("summer-1", 5, 5),
        ("winter-1", 7, 7),
    ]
    assert [row["name"] for row in json.loads(coupon("list", "--search", "WINT", "--json").stdout)] == ["winter-1"]
    assert "summer-1" in coupon("list").stdout

    shown = json.loads(coupon("show", "summer-1", "--json").stdout)
    assert (shown["amount"], shown["claimed_by"]) == (5, [])
    assert "summer-1" in coupon("show", "summer-1").stdout
    unknown = coupon("show", "autumn")
    assert (unknown.returncode, "no coupon autumn" in unknown.stderr) == (1, True)


@pytest.mark.parametrize(
    ("name", "amount"), [("..", "1"), ("a b", "1"), ("a\n", "1"), ("x" * 256, "1"), ("a", "0"), ("a", str(2**31))]
)
def test_a_coupon_that_the_contract_forbids_is_wrong_usage(name: str, amount: str) -> None:
    assert claimsvc("coupon", "create", name, "--amount", amount).returncode == 2


def test_a_taken_port_is_told_in_one_sentence(served: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as rival:
        port = str(rival.getsockname()[1])
        for arguments in (("serve", "--port", port), ("serve", "--port", port, "--workers", "2")):
            told = claimsvc(*arguments, **served)
            assert told.returncode == 78
            assert told.stderr == (
                f"error: Port {port} of 127.0.0.1 is taken by another program: stop that, or choose another with "
                "--port.\n"
            )


def test_dev_tells_of_a_taken_port_before_it_starts_databases(state_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as rival:
        port = rival.getsockname()[1]
        told = claimsvc("dev", "--state-dir", str(state_dir), PORT=str(port))
    assert told.returncode == 78
    assert f"Port {port} of 127.0.0.1 is taken" in told.stderr
    assert not state_dir.exists()


def test_serve_answers_and_sigterm_ends_it_with_status_0(start: Starter, served: dict[str, str]) -> None:
    program = start("serve", **served)
    url = address(program)
    assert call(url, "POST", "/api/coupons", {"name": "c", "amount": 1}, ADMIN_KEY)[0] == 201
    assert call(url, "POST", "/api/coupons/claim", {"user_id": "u", "coupon_name": "c"})[0] == 201
    assert program.end(signal.SIGTERM) == 0


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


def listens(url: str) -> bool:
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 0), timeout=1).close()
    except ConnectionRefusedError:
        return False
    return True


def test_a_killed_worker_is_started_again(start: Starter, served: dict[str, str]) -> None:
    program = start("serve", "--workers", "2", **served)
    url = address(program)
    program.eventually(lambda: program.count("serving") == 2)
    first, second = program.pids_of_workers()
    os.kill(first, signal.SIGKILL)
    assert call(url, "GET", "/readyz")[0] == 200  # the other goes on
    program.eventually(lambda: program.count("serving") == 3)
    third = program.pids_of_workers()[-1]
    assert third not in (first, second)
    assert call(url, "GET", "/readyz")[0] == 200
    assert program.end(signal.SIGTERM) == 0
    assert not any(is_alive(pid) for pid in (first, second, third))


def test_metrics_of_all_workers_are_added_up_and_their_folder_is_removed(
    start: Starter, served: dict[str, str], tmp_path: Path
) -> None:
    program = start("serve", "--workers", "2", **served, TMPDIR=str(tmp_path))
    url = address(program)
    program.eventually(lambda: program.count("serving") == 2)
    assert list(tmp_path.glob("claimsvc-metrics-*"))
    assert call(url, "POST", "/api/coupons", {"name": "c", "amount": 100}, ADMIN_KEY)[0] == 201
    for number in range(40):
        body = {"user_id": f"u{number}", "coupon_name": "c"}
        assert call(url, "POST", "/api/coupons/claim", body)[0] == 201

    def claimed() -> float:
        lines = call(url, "GET", "/metrics")[1].decode().splitlines()
        found = [line for line in lines if line.startswith("claimsvc_claims_total{") and 'outcome="claimed"' in line]
        return sum(float(line.rpartition(" ")[2]) for line in found)

    # One after another over new connections, so whichever worker answers knows its own claims only; the others' are in
    # the files within a moment.
    program.eventually(lambda: claimed() == 40)
    assert program.end(signal.SIGTERM) == 0
    assert not list(tmp_path.glob("claimsvc-metrics-*"))


def test_workers_end_by_themselves_when_their_supervisor_is_killed(start: Starter, served: dict[str, str]) -> None:
    program = start("serve", "--workers", "2", **served)
    program.eventually(lambda: program.count("serving") == 2)
    workers = program.pids_of_workers()
    assert all(is_alive(pid) for pid in workers)
    program.end(signal.SIGKILL)
    program.eventually(lambda: not any(is_alive(pid) for pid in workers))


def test_workers_that_cannot_start_end_the_supervisor_with_their_status(served: dict[str, str]) -> None:
    wrong = {**served, "CLAIMSVC_DATABASE_URL": "postgresql://nobody:nothing@127.0.0.1:1/none"}
    told = claimsvc("serve", "--workers", "2", **wrong)
    assert told.returncode == 78
    assert "CLAIMSVC_DATABASE_URL: " in told.stderr
    assert "Traceback" not in told.stderr


def test_dev_prints_a_claim_that_works_and_keeps_its_data(start: Starter, state_dir: Path) -> None:
    remaining = []
    for arguments in ((), (), ("--fresh",)):
        program = start("dev", "--port", "0", "--masters", "1", "--state-dir", str(state_dir), *arguments)
        url = program.eventually_prints(r"(http://127\.0\.0\.1:\d+)/docs")
        claim = json.loads(program.eventually_prints(r"(\{.*\"coupon_name\".*\})"))
        key = program.eventually_prints(r"Bearer ([A-Za-z0-9_-]+)")
        assert call(url, "POST", "/api/coupons/claim", claim)[0] == 201
        assert call(url, "POST", "/api/coupons", {"name": f"by-{key[:8]}", "amount": 1}, key)[0] in (201, 409)
        remaining.append(json.loads(call(url, "GET", "/api/coupons/demo")[1])["remaining_amount"])
        key_file = state_dir / "admin-key"
        assert (key_file.read_text().strip(), key_file.stat().st_mode & 0o777) == (key, 0o600)
        program.eventually_prints("Ctrl-C stops")
        assert program.end(signal.SIGINT) == 0
        assert pids_on(state_dir) == []
    assert remaining == [99, 98, 99]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_dev_leaves_no_process_behind(start: Starter, state_dir: Path, number: signal.Signals) -> None:
    program = start("dev", "--port", "0", "--state-dir", str(state_dir))
    program.eventually_prints("Ctrl-C stops")
    assert len(pids_on(state_dir)) > 4
    assert program.end(number) == (0 if number == signal.SIGTERM else -signal.SIGKILL)
    program.eventually(lambda: pids_on(state_dir) == [])


def test_dev_stopped_while_it_starts_leaves_no_process_behind(start: Starter, state_dir: Path) -> None:
    program = start("dev", "--port", "0", "--state-dir", str(state_dir))
    program.eventually_prints("Starting PostgreSQL")
    assert program.end(signal.SIGTERM) == 0
    assert "Traceback" not in program.stderr
    program.eventually(lambda: pids_on(state_dir) == [])


def test_a_second_dev_on_the_same_state_folder_is_refused(start: Starter, state_dir: Path) -> None:
    first = start("dev", "--port", "0", "--masters", "1", "--state-dir", str(state_dir))
    first.eventually_prints("Ctrl-C stops")
    told = claimsvc("dev", "--port", "0", "--state-dir", str(state_dir))
    assert told.returncode == 1
    assert f"Another run (process {first.process.pid}) uses the state folder" in told.stderr
    assert first.end(signal.SIGINT) == 0


def test_dev_refuses_an_even_number_of_masters() -> None:
    assert claimsvc("dev", "--masters", "2").returncode == 2


def test_dev_runs_a_command_against_the_service_and_has_its_status(state_dir: Path) -> None:
    script = "import os, sys, urllib.request as u; u.urlopen(os.environ['URL'] + '/readyz').close(); sys.exit(7)"
    command = ("dev", "--port", "0", "--masters", "1", "--temporary", "--", sys.executable, "-c", script)
    folder = state_dir.parent
    told = claimsvc(*command, TMPDIR=str(folder))
    assert told.returncode == 7, told.stderr
    assert told.stdout == ""
    assert list(folder.iterdir()) == []


def test_dev_ends_its_command_when_it_is_stopped_itself(start: Starter) -> None:
    script = "import os, time; print('pid', os.getpid(), flush=True); time.sleep(600)"
    command = ("dev", "--port", "0", "--masters", "1", "--temporary", "--", sys.executable, "-c", script)
    program = start(*command)
    pid = int(program.eventually_prints(r"pid (\d+)"))
    assert program.end(signal.SIGTERM) == 130
    assert not is_alive(pid)


def test_dev_stops_when_the_parent_that_it_was_given_is_gone(start: Starter, state_dir: Path) -> None:
    # A shell stands for `make`: it starts dev, which is told whose child it is.
    command = ["/bin/sh", "-c", '"$@" --parent $$ & wait', "sh", *CLAIMSVC, "dev"]
    options = ["--port", "0", "--masters", "1", "--state-dir", str(state_dir)]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, env=environment({}), text=True) as parent:
        assert parent.stdout is not None
        assert any("Ctrl-C stops" in line for line in parent.stdout)
        parent.kill()
        assert "Stopping." in parent.stdout.read()
    block_until(lambda: not pids_on(state_dir), "every process is gone", within_seconds=DEADLINE_SECONDS)
