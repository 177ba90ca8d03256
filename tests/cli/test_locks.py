"""`claimsvc locks`: what it prints, what it returns, and what it leaves behind."""

import asyncio
import contextlib
import getpass
import json
import os
import pty
import re
import subprocess
import time
from collections.abc import Iterator

import pytest
import redis

from tests.support.audit import trail
from tests.support.program import CLAIMSVC, claimsvc_here, environment

TOKEN = "web-1:42:0a1b2c3d/a-token"


@pytest.fixture
def variables(redis_urls: tuple[str, ...], database_url: str) -> dict[str, str]:
    return {"CLAIMSVC_DATABASE_URL": database_url, "CLAIMSVC_REDIS_URLS": ",".join(redis_urls)}


@pytest.fixture
def held(redis_urls: tuple[str, ...]) -> Iterator[None]:
    """The instance `web-1` holds the lock of `spring`, and `web-2` waits for it."""
    masters = [redis.Redis.from_url(url) for url in redis_urls]
    for master in masters:
        master.set("claim:coupon:spring", TOKEN, px=20_000)
    masters[0].zadd("claim:waiting:spring", {"web-2:7:ffffffff": int(time.time() * 1e6)})
    yield
    for master in masters:
        master.close()


def test_locks_are_printed_for_people_and_for_programs(variables: dict[str, str], held: None) -> None:
    told = claimsvc_here("locks", **variables)
    assert told.returncode == 0
    [row] = [line for line in told.stdout.splitlines() if line.startswith("spring")]
    assert "web-1:42:0a1b2c3d" in row
    assert "3 of 3" in row
    assert "web-2:7:ffffffff (" in row
    told = claimsvc_here("locks", "--json", **variables)
    body = json.loads(told.stdout)
    assert (told.returncode, told.stderr, body["complete"]) == (0, "", True)
    [item] = body["items"]
    assert (item["coupon_name"], item["holder"], item["held"]) == ("spring", "web-1:42:0a1b2c3d", True)
    assert all(0 < each["ttl_seconds"] <= 20 for each in item["masters"])
    assert list(body["masters"].values()) == ["up", "up", "up"]


def test_names_are_whole_wherever_they_are_printed(
    variables: dict[str, str], redis_urls: tuple[str, ...], held: None
) -> None:
    name = "a-name-as-long-as-it-may-be-" + "x" * 227
    with redis.Redis.from_url(redis_urls[0]) as master:
        master.set(f"claim:coupon:{name}", TOKEN, px=20_000)
    assert f"\n{name}  web-1:42:0a1b2c3d (no majority)  " in claimsvc_here("locks", **variables).stdout
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*CLAIMSVC, "locks"], stdout=theirs, stderr=theirs, env=environment({**variables, "COLUMNS": "80"})
    ) as program:
        os.close(theirs)
        with os.fdopen(ours, "rb") as terminal, contextlib.suppress(OSError):  # which is how its end is told
            said = b""
            while piece := terminal.read1():
                said += piece
    assert program.returncode == 0
    first_column = [line.split("  ")[0] for line in re.sub(r"\x1b\[[0-9;]*m", "", said.decode()).splitlines()]
    assert name in "".join(first_column)


def test_locks_are_told_without_postgresql_and_with_a_master_down(variables: dict[str, str], held: None) -> None:
    first, second, _ = variables["CLAIMSVC_REDIS_URLS"].split(",")
    variables |= {
        "CLAIMSVC_DATABASE_URL": "postgresql://nobody:nothing@127.0.0.1:1/none",
        "CLAIMSVC_REDIS_URLS": f"{first},{second},redis://127.0.0.1:2",
    }
    told = claimsvc_here("locks", **variables)
    assert told.returncode == 0
    assert "2 of 3" in told.stdout
    assert "127.0.0.1:2 cannot be used: no server listens at its host and port" in told.stdout
    variables["CLAIMSVC_REDIS_URLS"] = f"{first},redis://127.0.0.1:2,redis://127.0.0.1:3"
    told = claimsvc_here("locks", "--json", **variables)
    assert (told.returncode, told.stdout) == (1, "")
    assert "2 of 3 masters cannot be used" in told.stderr
    assert "run `claimsvc doctor` for details" in told.stderr


def test_a_lock_is_released_with_a_reason_in_the_name_of_the_systems_user(
    variables: dict[str, str], redis_urls: tuple[str, ...], held: None
) -> None:
    release = ("locks", "release", "spring", "--reason", "web-1 hangs", "--yes")
    told = claimsvc_here(*release, **variables, LOGNAME="somebody-else", USER="somebody-else")
    assert told.returncode == 0, told.stderr
    assert "Released spring, held by web-1:42:0a1b2c3d, on" in told.stdout
    assert "was woken" in told.stdout
    for url in redis_urls:
        with redis.Redis.from_url(url) as master:
            assert master.get("claim:coupon:spring") is None
    [entry] = asyncio.run(trail(variables["CLAIMSVC_DATABASE_URL"]))
    assert entry.actor.startswith(f"os-user:{getpass.getuser() if os.getuid() else 'root'}@")
    assert (entry.action, entry.reason, entry.request_id) == ("lock.release", "web-1 hangs", None)

    told = claimsvc_here(*release, **variables)
    assert (told.returncode, "the lock of spring is not held" in told.stderr) == (1, True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("spring", "--yes"),
        ("spring", "--reason", "nobody says yes"),
        ("spring", "--reason", " ", "--yes"),
        ("spring", "--reason", "a\nb", "--yes"),
        ("spring", "--reason", "a\u2028b", "--yes"),
        ("spring", "--reason", "\u200b\ufeff", "--yes"),
        ("spring", "--reason", "no UTF-8: \udcff", "--yes"),
        ("spring", "--reason", "a" * 501, "--yes"),
        ("..", "--reason", "because", "--yes"),
    ],
)
def test_what_is_not_said_clearly_is_wrong_usage_and_releases_nothing(
    variables: dict[str, str], redis_urls: tuple[str, ...], held: None, arguments: tuple[str, ...]
) -> None:
    told = claimsvc_here("locks", "release", *arguments, **variables)
    assert told.returncode == 2, told.stderr
    assert "Traceback" not in told.stderr
    with redis.Redis.from_url(redis_urls[0]) as master:
        assert master.get("claim:coupon:spring") == TOKEN.encode()


@pytest.mark.parametrize(("answer", "status", "is_released"), [(b"n\n", 1, False), (b"y\n", 0, True)])
def test_on_a_terminal_it_is_asked_first(
    variables: dict[str, str], redis_urls: tuple[str, ...], held: None, answer: bytes, status: int, is_released: bool
) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*CLAIMSVC, "locks", "release", "spring", "--reason", "because"],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment(variables),
    ) as program:
        os.write(ours, answer)
        said = program.communicate(timeout=60)[0].decode()
    os.close(ours)
    os.close(theirs)
    assert program.returncode == status, said
    with redis.Redis.from_url(redis_urls[0]) as master:
        assert (master.get("claim:coupon:spring") is None) == is_released


def test_without_postgresql_a_release_is_refused(
    variables: dict[str, str], redis_urls: tuple[str, ...], held: None
) -> None:
    variables["CLAIMSVC_DATABASE_URL"] = "postgresql://nobody:nothing@127.0.0.1:1/none"
    told = claimsvc_here("locks", "release", "spring", "--reason", "because", "--yes", **variables)
    assert told.returncode == 1
    assert "PostgreSQL" in told.stderr
    with redis.Redis.from_url(redis_urls[0]) as master:
        assert master.get("claim:coupon:spring") == TOKEN.encode()
