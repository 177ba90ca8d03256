"""The command line: what it prints, what it returns, and what it leaves behind."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import time
from datetime import datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from alembic import command
from alembic.config import Config

import migrations
from claimsvc.embedded import PostgresServer
from tests.support.admin import ADMIN_KEY
from tests.support.program import Starter, address, call, claimsvc, claimsvc_here, is_alive


@pytest.mark.parametrize(
    "words", ["", "dev", "serve", "migrate", "coupon", "claims", "codes", "key", "locks", "user", "lists", "doctor"]
)
def test_every_command_explains_itself(words: str) -> None:
    """The program that is installed, in a process of its own; most others are commands in this one."""
    told = claimsvc(*words.split(), "--help")
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
    told = claimsvc_here(*command)
    assert told.returncode == 78
    assert "CLAIMSVC_DATABASE_URL is not set" in told.stderr
    assert "REDIS" not in told.stderr


@pytest.mark.parametrize("command", [("coupon", "list"), ("migrate",)])
def test_a_database_that_does_not_answer_is_told_without_a_traceback(command: tuple[str, ...]) -> None:
    told = claimsvc_here(*command, CLAIMSVC_DATABASE_URL="postgresql://nobody:nothing@127.0.0.1:1/none")
    assert told.returncode in (1, 78)
    assert "error:" in told.stderr
    assert "Traceback" not in told.stderr


def test_a_key_for_everything_is_made_with_the_digest_that_the_service_is_given() -> None:
    first, second = [claimsvc("key", "create", "--digest-only").stdout for _ in range(2)]
    assert first != second
    key = first.splitlines()[1].strip()
    assert len(key) >= 40
    assert f"CLAIMSVC_ADMIN_KEYS={hashlib.sha256(key.encode()).hexdigest()}" in first


def test_keys_are_made_listed_and_revoked_and_none_is_ever_shown_again(database_url: str) -> None:
    def key(*words: str) -> subprocess.CompletedProcess[str]:
        return claimsvc_here("key", *words, CLAIMSVC_DATABASE_URL=database_url)

    made = key("create", "--label", "the [red]shop", "--scope", "coupons:write", "--scope", "claims:read")
    for_days = key("create", "--label", "support", "--scope", "claims:write", "--expires-days", "30")
    secret = made.stdout.splitlines()[1].strip()
    first, second = json.loads(key("list", "--json").stdout)
    assert first["id"] in made.stdout
    assert first["label"] == "the [red]shop"
    assert (first["scopes"], first["expires_at"]) == (["claims:read", "coupons:write"], None)
    ends = datetime.fromisoformat(second["expires_at"]) - datetime.fromisoformat(second["created_at"])
    assert abs(ends - timedelta(days=30)) < timedelta(minutes=1)
    assert second["id"] in for_days.stdout

    revoked, again = key("revoke", first["id"]), key("revoke", first["id"])
    assert (revoked.returncode, again.returncode) == (0, 1)
    assert "Traceback" not in again.stderr
    table = key("list").stdout
    assert "the [red]shop" in table
    assert [each["revoked_at"] is None for each in json.loads(key("list", "--json").stdout)] == [False, True]
    assert secret not in table
    with psycopg.connect(database_url.replace("+psycopg", "")) as connection:
        kept = connection.execute("SELECT array_agg(api_keys::text) || array_agg(audit::text) FROM api_keys, audit")
        assert secret not in str(kept.fetchall())


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--label", "the shop"),
        ("--scope", "claims:read"),
        ("--label", " ", "--scope", "claims:read"),
        ("--label", "\u3164", "--scope", "claims:read"),
        ("--label", "two\nlines", "--scope", "claims:read"),
        ("--label", "l" * 101, "--scope", "claims:read"),
        ("--label", "the shop", "--scope", "claims:fly"),
        ("--label", "the shop", "--scope", "claims:read", "--expires-days", "0"),
    ],
)
def test_a_key_that_is_for_nothing_in_particular_is_wrong_usage(words: tuple[str, ...]) -> None:
    told = claimsvc_here("key", "create", *words)
    assert told.returncode == 2
    assert "Traceback" not in told.stderr


def test_migrate_makes_the_schema_and_may_be_run_again(postgres: PostgresServer) -> None:
    with psycopg.connect(postgres.url_of("postgres"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE bare")
        try:
            url = postgres.url_of("bare")
            before = claimsvc_here("coupon", "list", CLAIMSVC_DATABASE_URL=url)
            assert before.returncode == 78
            for _ in range(2):
                assert claimsvc("migrate", CLAIMSVC_DATABASE_URL=url).returncode == 0
            assert claimsvc_here("coupon", "list", CLAIMSVC_DATABASE_URL=url).returncode == 0
        finally:
            connection.execute("DROP DATABASE bare WITH (FORCE)")


def test_a_schema_of_a_newer_version_is_left_to_that(database_url: str) -> None:
    with psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    told = claimsvc("migrate", CLAIMSVC_DATABASE_URL=database_url)
    assert told.returncode == 1
    assert "'9999'" in told.stderr
    assert "Traceback" not in told.stderr


def migrate_to(revision: str, url: str) -> None:
    """As an older version has left it."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.attributes["database_url"] = url.replace("postgresql://", "postgresql+psycopg://")
    command.upgrade(config, revision)


@pytest.mark.slow
def test_migrate_does_not_wait_for_a_table_in_use_and_keep_claims_waiting_behind_it(postgres: PostgresServer) -> None:
    with psycopg.connect(postgres.url_of("postgres"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE in_use")
        try:
            url = postgres.url_of("in_use")
            migrate_to("0001", url)
            with psycopg.connect(url) as user:
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
        return claimsvc_here("coupon", *arguments, CLAIMSVC_DATABASE_URL=database_url)

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


def test_coupons_are_changed_and_archived(database_url: str) -> None:
    def coupon(*arguments: str) -> subprocess.CompletedProcess[str]:
        return claimsvc_here("coupon", *arguments, CLAIMSVC_DATABASE_URL=database_url)

    def shown() -> dict[str, object]:
        found: dict[str, object] = json.loads(coupon("show", "spring", "--json").stdout)
        return found

    start = ("--starts-at", "2026-11-27T09:00:00+09:00")
    offer = ("--benefit", '{"percent_off": 15}', "--type", "welcome", "--per-user-limit", "2", "--paused")
    assert coupon("create", "spring", "--amount", "5", *start, *offer).returncode == 0
    assert shown()["benefit"] == {"percent_off": 15}
    assert (shown()["type"], shown()["per_user_limit"], shown()["paused"]) == ("welcome", 2, True)
    assert "2026-11-27" in coupon("show", "spring").stdout

    assert coupon("change", "spring", "--amount", "9", "--resume", "--starts-at", "none").returncode == 0
    assert (shown()["amount"], shown()["remaining_amount"], shown()["paused"], shown()["starts_at"]) == (
        9,
        9,
        False,
        None,
    )
    assert (shown()["type"], shown()["claims_per_user"]) == ("welcome", 12)
    for given, claims_per_user in (("5", 5), ("none", 12)):
        assert coupon("change", "spring", "--claims-per-user", given).returncode == 0
        assert shown()["claims_per_user"] == claims_per_user
    for wrong in (
        ("--claims-per-user", "0"),
        ("--claims-per-user", "many"),
        ("--ends-at", "tomorrow"),
        ("--benefit", "{"),
        ("--benefit", '{"percent_off": 101}'),
        (),
    ):
        assert coupon("change", "spring", *wrong).returncode == 2, wrong
    empty = coupon("change", "spring", *start, "--ends-at", "2026-11-01T00:00:00Z")
    assert (empty.returncode, "end before it starts" in empty.stderr) == (1, True)
    unknown = coupon("change", "autumn", "--pause")
    assert (unknown.returncode, "no coupon autumn" in unknown.stderr) == (1, True)

    listed = json.loads(coupon("list", "--json", "--type", "welcome", "--state", "open").stdout)
    assert [(row["name"], row["state"], row["type"]) for row in listed] == [("spring", "open", "welcome")]
    assert json.loads(coupon("list", "--json", "--type", "").stdout) == []
    audited = claimsvc_here("audit", "--subject", "spring", CLAIMSVC_DATABASE_URL=database_url).stdout
    assert "amount: 5 → 9, paused: true → false, starts_at: 2026-11-27T00:00:00Z → null" in audited
    assert coupon("archive", "spring").returncode == 0
    assert json.loads(coupon("list", "--json").stdout) == []
    for states, names in ((("archived",), ["spring"]), (("open", "archived"), ["spring"]), (("open",), [])):
        options = [part for state in states for part in ("--state", state)]
        assert [row["name"] for row in json.loads(coupon("list", "--json", *options).stdout)] == names
    with psycopg.connect(database_url.replace("+psycopg", "")) as connection:
        told = connection.execute("SELECT action, details FROM audit ORDER BY id").fetchall()
    assert told == [
        ("coupon.create", {"amount": 5, "strategy": "redlock"}),
        (
            "coupon.change",
            {
                "fields": ["amount", "paused", "starts_at"],
                "changes": {
                    "amount": {"old": 5, "new": 9},
                    "paused": {"old": True, "new": False},
                    "starts_at": {"old": "2026-11-27T00:00:00Z", "new": None},
                },
            },
        ),
        *(
            ("coupon.change", {"fields": ["claims_per_user"], "changes": {"claims_per_user": {"old": old, "new": new}}})
            for old, new in ((None, 5), (5, None))
        ),
        ("coupon.archive", {}),
    ]


def test_a_coupon_is_given_a_queue_and_loses_it(database_url: str) -> None:
    def coupon(*arguments: str) -> subprocess.CompletedProcess[str]:
        return claimsvc_here("coupon", *arguments, CLAIMSVC_DATABASE_URL=database_url)

    queue = {"rate_per_second": 10, "concurrency": 5, "max_wait_seconds": 10, "max_length": 100}
    assert coupon("create", "mega", "--amount", "100", "--queue", json.dumps(queue)).returncode == 0
    assert json.loads(coupon("show", "mega", "--json").stdout)["queue"] == {**queue, "order": "fifo"}
    assert 'queue: {"rate_per_second":10' in coupon("show", "mega").stdout.replace(": 10", ":10")
    wrong = coupon("change", "mega", "--queue", json.dumps({**queue, "concurrency": 0}))
    assert (wrong.returncode, "--queue" in wrong.stderr, "concurrency" in wrong.stderr) == (2, True, True)
    assert coupon("change", "mega", "--queue", "none").returncode == 0
    assert json.loads(coupon("show", "mega", "--json").stdout)["queue"] is None
    assert "queue" not in coupon("show", "mega").stdout


@pytest.mark.parametrize(
    ("name", "amount"),
    [("..", "1"), ("a  b", "1"), (" a", "1"), ("a\n", "1"), ("x" * 256, "1"), ("a", "0"), ("a", str(2**31))],
)
def test_a_coupon_that_the_contract_forbids_is_wrong_usage(name: str, amount: str) -> None:
    assert claimsvc_here("coupon", "create", name, "--amount", amount).returncode == 2


@pytest.mark.slow
def test_a_taken_port_is_told_in_one_sentence(served: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as rival:
        port = str(rival.getsockname()[1])
        for arguments in (("serve", "--port", port), ("serve", "--port", port, "--workers", "2")):
            told = claimsvc(*arguments, **served)
            assert told.returncode == 78
            assert told.stderr == (
                f"error: Port {port} of 127.0.0.1 is in use by another program: stop it, or choose another port with "
                "--port or CLAIMSVC_PORT.\n"
            )


def test_serve_answers_and_sigterm_ends_it_with_status_0(start: Starter, served: dict[str, str]) -> None:
    program = start("serve", **served)
    url = address(program)
    assert call(url, "POST", "/api/coupons", {"name": "c", "amount": 1}, ADMIN_KEY)[0] == 201
    assert call(url, "POST", "/api/coupons/claim", {"user_id": "u", "coupon_name": "c"})[0] == 201
    assert program.end(signal.SIGTERM) == 0


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_workers_end_by_themselves_when_their_supervisor_is_killed(start: Starter, served: dict[str, str]) -> None:
    program = start("serve", "--workers", "2", **served)
    program.eventually(lambda: program.count("serving") == 2)
    workers = program.pids_of_workers()
    assert all(is_alive(pid) for pid in workers)
    program.end(signal.SIGKILL)
    program.eventually(lambda: not any(is_alive(pid) for pid in workers))


@pytest.mark.slow
def test_workers_that_cannot_start_end_the_supervisor_with_their_status(served: dict[str, str]) -> None:
    wrong = {**served, "CLAIMSVC_DATABASE_URL": "postgresql://nobody:nothing@127.0.0.1:1/none"}
    told = claimsvc("serve", "--workers", "2", **wrong)
    assert told.returncode == 78
    assert "CLAIMSVC_DATABASE_URL: " in told.stderr
    assert "Traceback" not in told.stderr
