"""Which trouble it is: a wrong password, a missing database and a dead server are told apart, by every command."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis, exceptions

from claimsvc.embedded import EmbeddedServices
from claimsvc.errors import Trouble
from claimsvc.postgres import trouble_of as trouble_of_database
from claimsvc.redis.troubles import trouble_of as trouble_of_master
from tests.doctor.conftest import settings_of, variables
from tests.support.injectors.postgres import every_connection_taken
from tests.support.program import claimsvc, claimsvc_here

SECRET = "a-secret-of-mine"

# Of the database, by name: how its URL is made wrong, what is said, and what is to be done.
DATABASES = {
    "password": ("it refuses the user or the password", "correct the user and the password"),
    "none": ("it wants a password, and none was given", "write user:password@"),
    "database": ("it has no such database", "create the database"),
    "dead": ("no server listens at its host and port", "start it, or correct CLAIMSVC_DATABASE_URL"),
    "host": ("its host name is unknown", "correct the host"),
    "silent": ("it does not answer in time", "check that it runs"),
    "tls": ("do not agree on TLS", "correct `sslmode`"),
    "schema": ("its schema is missing", "run `claimsvc migrate`"),
}


def wrong_database(url: str, trouble: str, silent_port: int) -> str:
    parts = urlsplit(url)
    port = str(parts.port)
    return {
        "password": url.replace(str(parts.password), SECRET),
        "none": url.replace(f":{parts.password}@", "@"),
        "database": url.replace(parts.path, "/no-such"),
        "dead": url.replace(f":{port}/", ":1/"),
        "host": url.replace(str(parts.hostname), "no-such-host.invalid"),
        "silent": url.replace(f":{port}/", f":{silent_port}/"),
        "tls": f"{url}?sslmode=require",
        "schema": url.replace(parts.path, "/postgres"),
    }[trouble]


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port where connections are made, and nobody speaks."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(8)
        yield listening.getsockname()[1]


@pytest.mark.parametrize(
    ("command", "trouble"),
    [
        *((command, trouble) for command in ("coupon list", "doctor") for trouble in DATABASES),
        *((command, trouble) for command in ("sweep", "serve") for trouble in ("password", "database", "schema")),
        *(("migrate", trouble) for trouble in ("password", "database", "dead", "silent")),
    ],
)
def test_each_trouble_of_the_database_has_its_own_words(
    sound: EmbeddedServices, sound_database_url: str, silent_port: int, command: str, trouble: str
) -> None:
    set_to = variables(settings_of(sound_database_url, sound.redis_urls))
    set_to["CLAIMSVC_DATABASE_URL"] = wrong_database(sound_database_url, trouble, silent_port)
    set_to["CLAIMSVC_DATABASE_CONNECT_TIMEOUT_SECONDS"] = "2"
    run = claimsvc if command == "serve" else claimsvc_here
    told = run(*command.split(), **set_to)
    shown = " ".join((told.stdout + told.stderr).split())
    found, mend = DATABASES[trouble]
    if (command, trouble) == ("doctor", "schema"):
        found = "the schema is missing"
    assert told.returncode in (1, 78)
    assert found in shown
    assert mend in shown
    assert "Traceback" not in shown
    for other, (words, _) in DATABASES.items():
        assert other == trouble or words not in shown
    for secret in (SECRET, str(urlsplit(sound_database_url).password)):
        assert secret not in shown


@contextmanager
def password_on(url: str) -> Iterator[None]:
    with Redis.from_url(url) as master:
        master.config_set("requirepass", "the-right-one")
        try:
            yield
        finally:
            master.config_set("requirepass", "")


@pytest.mark.parametrize("command", ["locks", "sweep", "serve", "doctor"])
def test_each_trouble_of_the_masters_has_its_own_words(
    sound: EmbeddedServices, sound_database_url: str, silent_port: int, command: str
) -> None:
    first, second, _ = sound.redis_urls
    places = [first.replace("redis://", f"redis://:{SECRET}@"), second, "redis://127.0.0.1:1"]
    set_to = variables(settings_of(sound_database_url, places, redis_timeout_seconds=0.5))
    run = claimsvc if command == "serve" else claimsvc_here
    with password_on(first), password_on(second):
        told = run(*command.split(), **set_to)
        shown = " ".join((told.stdout + told.stderr).split())
    assert told.returncode in (1, 78)
    for name, words in (
        (first, "it refuses the user or the password"),
        (second, "it wants a password, and none was given"),
        (places[2], "no server listens at its host and port"),
    ):
        assert shown.index(urlsplit(name).netloc) >= 0
        assert words in shown
    for mend in ("correct the password in its URL", "write :password@ into its URL", "start it, or correct its place"):
        assert mend in shown
    assert "Traceback" not in shown
    assert SECRET not in shown


@contextmanager
def no_more_connections(url: str) -> Iterator[None]:
    """A master that takes the connection of whoever is there, and no other."""
    with Redis.from_url(url) as master:
        before = master.config_get("maxclients")["maxclients"]
        master.config_set("maxclients", len(master.client_list()))
        try:
            yield
        finally:
            master.config_set("maxclients", before)


def test_doctor_tells_an_unknown_master_from_a_silent_one_and_a_full_one(
    sound: EmbeddedServices, sound_database_url: str, silent_port: int
) -> None:
    places = ["redis://no-such-host.invalid:6379", f"redis://127.0.0.1:{silent_port}", sound.redis_urls[2]]
    set_to = variables(settings_of(sound_database_url, places, redis_timeout_seconds=0.5))
    with no_more_connections(places[2]):
        told = claimsvc_here("doctor", **set_to)
    assert told.returncode == 1
    lines = {line.split(": ")[0].split()[-1]: line for line in told.stdout.splitlines() if line.startswith("wrong")}
    for place, found, mend in (
        (places[0], "its host name is unknown", "correct the host in CLAIMSVC_REDIS_URLS"),
        (places[1], "it does not answer in time", "check that it runs, and that no firewall is in between"),
        (places[2], "all of its connections are in use", "raise maxclients"),
    ):
        line = lines[urlsplit(place).netloc]
        assert found in line
        assert mend in line


def test_doctor_tells_that_postgresql_has_no_connection_left(sound: EmbeddedServices, sound_database_url: str) -> None:
    set_to = variables(settings_of(sound_database_url, sound.redis_urls))
    with every_connection_taken(sound_database_url.replace("+psycopg", "")):
        told = claimsvc_here("doctor", **set_to)
    assert told.returncode == 1
    [line] = [line for line in told.stdout.splitlines() if line.startswith("wrong")]
    assert line.startswith("wrong    database: it cannot be used: all of its connections are in use (")
    assert "To fix it: raise max_connections, or lower CLAIMSVC_DATABASE_POOL_SIZE" in line


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (
            exceptions.AuthenticationError("WRONGPASS invalid pair"),
            "it refuses the user or the password",
        ),
        (exceptions.AuthenticationError("Authentication required."), "it wants a password"),
        (exceptions.NoPermissionError("this user has no permissions"), "its user may not run a command"),
        (exceptions.TimeoutError("Timeout reading from a:1"), "it does not answer in time"),
        (exceptions.ConnectionError("Connection closed by server."), "it closes the connection, or is no Redis"),
    ],
)
def test_what_redis_says_is_told_in_words(error: Exception, found: str) -> None:
    trouble = trouble_of_master(error)  # type: ignore[arg-type]
    assert trouble.found.startswith(found)
    assert "CLAIMSVC_REDIS_URLS" in trouble.mend or "ACL" in trouble.mend


@given(st.text())
def test_whatever_a_server_says_there_is_something_to_do(words: str) -> None:
    """A server may speak another language than English: its own words are told then."""
    trouble: Trouble = trouble_of_database(Exception(words))
    assert trouble.found
    assert trouble.mend
    assert "\n" not in str(trouble)
