"""`claimsvc dev` as a real process: what it starts, prints, keeps and leaves behind."""

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from claimsvc.embedded import temporary_state_dir
from tests.support.program import (
    CLAIMSVC,
    DEADLINE_SECONDS,
    Starter,
    call,
    claimsvc,
    claimsvc_here,
    environment,
    is_alive,
    pids_on,
)
from tests.support.waiting import block_until


@pytest.fixture
def state_dir() -> Iterator[Path]:
    """A state folder that does not exist yet; afterwards nothing may run on it."""
    with temporary_state_dir() as path:
        yield path / "state"
        assert pids_on(path) == []


def test_dev_tells_of_a_taken_port_before_it_starts_databases(state_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as rival:
        port = rival.getsockname()[1]
        told = claimsvc("dev", "--state-dir", str(state_dir), PORT=str(port))
    assert told.returncode == 78
    assert f"Port {port} of 127.0.0.1 is in use" in told.stderr
    assert "choose another port with `make run PORT=8081`, or with --port 8081." in told.stderr
    assert not state_dir.exists()


@pytest.mark.slow
def test_dev_prints_a_claim_that_works_and_keeps_its_data(start: Starter, state_dir: Path) -> None:
    remaining = []
    for arguments in ((), (), ("--fresh",)):
        program = start("dev", "--port", "0", "--masters", "1", "--state-dir", str(state_dir), *arguments)
        url = program.eventually_prints(r"(http://127\.0\.0\.1:\d+)/docs")
        claim = json.loads(program.eventually_prints(r"(\{.*\"coupon_name\".*\})"))
        key = program.eventually_prints(r"Bearer ([A-Za-z0-9_-]+)")
        assert call(url, "POST", "/api/coupons/claim", claim)[0] == 201
        assert call(url, "POST", "/api/coupons", {"name": f"by-{key[:8]}", "amount": 1}, key)[0] in (201, 409)
        mega = json.loads(program.eventually_prints(r"(\{\"name\": \"mega-[^}]*\}\})"))
        assert call(url, "POST", "/api/coupons", mega, key)[0] == 201
        queued = call(url, "POST", "/api/coupons/claim", {"user_id": "user-1", "coupon_name": mega["name"]})
        assert (queued[0], call(url, "GET", f"/queue/{json.loads(queued[1])['id']}")[0]) == (202, 200)
        remaining.append(json.loads(call(url, "GET", "/api/coupons/demo")[1])["remaining_amount"])
        key_file = state_dir / "admin-key"
        assert (key_file.read_text().strip(), key_file.stat().st_mode & 0o777) == (key, 0o600)
        program.eventually_prints("Ctrl-C stops")
        assert program.end(signal.SIGINT) == 0
        assert pids_on(state_dir) == []
    assert remaining == [99, 98, 99]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_dev_leaves_no_process_behind(start: Starter, state_dir: Path, number: signal.Signals) -> None:
    program = start("dev", "--port", "0", "--state-dir", str(state_dir))
    program.eventually_prints("Ctrl-C stops")
    assert len(pids_on(state_dir)) > 4
    assert program.end(number) == (0 if number == signal.SIGTERM else -signal.SIGKILL)
    program.eventually(lambda: pids_on(state_dir) == [])


@pytest.mark.slow
def test_dev_stopped_while_it_starts_leaves_no_process_behind(start: Starter, state_dir: Path) -> None:
    program = start("dev", "--port", "0", "--state-dir", str(state_dir))
    program.eventually_prints("Starting PostgreSQL")
    assert program.end(signal.SIGTERM) == 0
    assert "Traceback" not in program.stderr
    program.eventually(lambda: pids_on(state_dir) == [])


@pytest.mark.slow
def test_a_second_dev_on_the_same_state_folder_is_refused(start: Starter, state_dir: Path) -> None:
    first = start("dev", "--port", "0", "--masters", "1", "--state-dir", str(state_dir))
    first.eventually_prints("Ctrl-C stops")
    told = claimsvc("dev", "--port", "0", "--state-dir", str(state_dir))
    assert told.returncode == 1
    assert f"Another run (process {first.process.pid}) uses the state folder" in told.stderr
    assert first.end(signal.SIGINT) == 0


def test_dev_refuses_an_even_number_of_masters() -> None:
    assert claimsvc_here("dev", "--masters", "2").returncode == 2


def test_dev_runs_a_command_against_the_service_and_has_its_status(state_dir: Path) -> None:
    script = "import os, sys, urllib.request as u; u.urlopen(os.environ['URL'] + '/readyz').close(); sys.exit(7)"
    command = ("dev", "--port", "0", "--masters", "1", "--temporary", "--", sys.executable, "-c", script)
    folder = state_dir.parent
    told = claimsvc(*command, TMPDIR=str(folder))
    assert told.returncode == 7, told.stderr
    assert told.stdout == ""
    assert list(folder.iterdir()) == []


@pytest.mark.slow
def test_dev_ends_its_command_when_it_is_stopped_itself(start: Starter) -> None:
    script = "import os, time; print('pid', os.getpid(), flush=True); time.sleep(600)"
    command = ("dev", "--port", "0", "--masters", "1", "--temporary", "--", sys.executable, "-c", script)
    program = start(*command)
    pid = int(program.eventually_prints(r"pid (\d+)"))
    assert program.end(signal.SIGTERM) == 130
    assert not is_alive(pid)


@pytest.mark.slow
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


@pytest.mark.slow
def test_dev_says_how_to_look_into_it_and_that_works(start: Starter, state_dir: Path) -> None:
    program = start("dev", "--port", "0", "--state-dir", str(state_dir))
    program.eventually_prints("Ctrl-C stops")
    told = program.stdout.partition("from another terminal:\n")[2].partition("\n\n")[0]
    commands = [re.split(r" {2,}", line.strip())[0] for line in told.splitlines()]
    assert commands[1:] == ["claimsvc locks", "claimsvc doctor", "claimsvc coupon list"]
    bare = {"PATH": "/usr/bin:/bin", "HOME": str(state_dir)}
    done = subprocess.run(
        ["sh", "-ec", "\n".join(commands)],
        env=bare,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "No lock is held." in done.stdout
    assert "masters: 3 of 3 can vote" in done.stdout
    assert "CLAIMSVC_ADMIN_KEYS is empty" not in done.stdout
    assert re.search(r"^demo +open\b", done.stdout, re.MULTILINE)
    file = state_dir / "environment"
    assert file.stat().st_mode & 0o777 == 0o600
    [password] = re.findall(r"DATABASE_URL=\S+://\w+:(\w+)@", file.read_text())
    assert password not in program.stdout + program.stderr
    assert program.end(signal.SIGTERM) == 0
    assert not file.exists()


def test_dev_is_not_open_to_other_machines(state_dir: Path) -> None:
    for host in ("0.0.0.0", "::"):
        told = claimsvc("dev", "--open", "--host", host, "--port", "0", "--state-dir", str(state_dir))
        assert (told.returncode, "leave --open or --host out" in told.stderr) == (78, True), told.stderr
    assert not state_dir.exists()


@pytest.mark.slow
def test_dev_that_is_open_lets_coupons_be_created_without_a_key_and_nothing_else(
    start: Starter, state_dir: Path
) -> None:
    """As the clients of other services do: create, claim, read, without credentials."""
    program = start("dev", "--open", "--port", "0", "--masters", "1", "--state-dir", str(state_dir))
    url = program.eventually_prints(r"(http://127\.0\.0\.1:\d+)/docs")
    program.eventually_prints("create coupons without a key")
    coupon = {"name": "FLASH SALE", "amount": 5}
    assert call(url, "POST", "/api/coupons", coupon)[0] == 201
    assert call(url, "POST", "/api/coupons/claim", {"user_id": "u1", "coupon_name": "FLASH SALE"})[0] == 201
    assert json.loads(call(url, "GET", "/api/coupons/FLASH%20SALE")[1])["claimed_by"] == ["u1"]
    assert call(url, "POST", "/api/coupons", {"name": "other", "amount": 5}, "no-key")[0] == 401
    assert call(url, "PATCH", "/api/coupons/FLASH%20SALE", {"amount": 9})[0] == 401
    assert call(url, "DELETE", "/api/users/u1")[0] == 401
    # The service's own examples name this machine otherwise, too; a page's name that leads here is refused.
    port = url.rpartition(":")[2]
    for host, status in ((f"localhost:{port}", 201), (f"evil.example:{port}", 421)):
        body = json.dumps({"name": f"by-{status}", "amount": 1}).encode()
        head = f"POST /api/coupons HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nConnection: close\r\n"
        with socket.create_connection(("127.0.0.1", int(port)), DEADLINE_SECONDS) as wire:
            wire.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            assert wire.makefile("rb").readline().split()[1] == str(status).encode()
    assert program.end(signal.SIGINT) == 0


@pytest.mark.slow
def test_dev_on_all_addresses_is_asked_under_the_names_it_is_given(start: Starter, state_dir: Path) -> None:
    options = ("--host", "0.0.0.0", "--port", "0", "--masters", "1", "--state-dir", str(state_dir))
    program = start("dev", *options, CLAIMSVC_ALLOWED_HOSTS="claims,LOCALHOST:9000")
    url = program.eventually_prints(r"(http://127\.0\.0\.1:\d+)/docs")
    program.eventually_prints("Ctrl-C stops")
    claim = {"user_id": "u1", "coupon_name": "demo"}
    assert call(url, "POST", "/api/coupons", {"name": "a", "amount": 1})[0] == 401
    assert call(url, "POST", "/api/coupons/claim", claim)[0] == 201
    port = int(url.rpartition(":")[2])
    for host, status in (("claims", 409), ("localhost:9000", 409), ("localhost:9001", 421), ("0.0.0.0:9000", 421)):
        body = json.dumps(claim).encode()
        head = f"POST /api/coupons/claim HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        with socket.create_connection(("127.0.0.1", port), DEADLINE_SECONDS) as wire:
            wire.sendall(f"{head}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            assert wire.makefile("rb").readline().split()[1] == str(status).encode(), host
    assert program.end(signal.SIGINT) == 0
