"""What commands print, and where; and what becomes of it when nobody reads on."""

import subprocess
from pathlib import Path

import psycopg
import pytest

from tests.support.program import CLAIMSVC, DEADLINE_SECONDS, claimsvc, environment


def test_a_full_disk_is_told_without_a_traceback(database_url: str) -> None:
    with Path("/dev/full").open("w") as full:
        told = subprocess.run(
            [*CLAIMSVC, "coupon", "list", "--json"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=DEADLINE_SECONDS,
            env=environment({"CLAIMSVC_DATABASE_URL": database_url}),
            check=False,
        )
    assert told.returncode == 1
    assert told.stderr.startswith("error: The output cannot be written: No space left on device")


@pytest.mark.slow
def test_what_reads_only_the_beginning_gets_it_and_no_traceback(database_url: str) -> None:
    with psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(
            "INSERT INTO coupons (name, amount, remaining_amount, strategy)"
            " SELECT 'coupon-' || number, 1, 1, 'redlock' FROM generate_series(1, 2000) AS number"
        )
    for options in (("--json",), ()):
        with subprocess.Popen(
            [*CLAIMSVC, "coupon", "list", "--limit", "2000", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment({"CLAIMSVC_DATABASE_URL": database_url}),
        ) as program:
            assert program.stdout is not None
            assert program.stderr is not None
            assert program.stdout.readline()
            program.stdout.close()
            assert program.stderr.read() == b""
            assert program.wait(DEADLINE_SECONDS) in (0, 1)


@pytest.mark.parametrize("arguments", [("list", "--search", "\udcff"), ("show", "\udcff"), ("show", "a  b")])
def test_what_no_coupon_can_be_named_is_wrong_usage(database_url: str, arguments: tuple[str, ...]) -> None:
    told = claimsvc("coupon", *arguments, CLAIMSVC_DATABASE_URL=database_url)
    assert (told.returncode, "Traceback" in told.stderr) == (2, False)


def test_what_a_command_has_to_report_is_not_among_what_it_prints(
    database_url: str, redis_urls: tuple[str, ...]
) -> None:
    """A master that is down is a line of the log, and standard output is for what was asked for."""
    masters = ",".join((*redis_urls[:2], "redis://127.0.0.1:1"))
    told = claimsvc("reconcile", CLAIMSVC_DATABASE_URL=database_url, CLAIMSVC_REDIS_URLS=masters)
    assert (told.returncode, told.stdout) == (0, "0 counters had drifted and were reset.\n")
    assert "master is down" in told.stderr
