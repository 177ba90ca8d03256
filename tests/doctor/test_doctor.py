"""`claimsvc doctor`, on real servers: what is wrong with each is found, and nothing else."""

import asyncio
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from claimsvc.config import Settings
from claimsvc.doctor import Finding, Level, examine
from claimsvc.doctor.settings import judge_settings
from claimsvc.embedded import EmbeddedServices, PostgresServer, embedded_services, temporary_state_dir
from claimsvc.postgres.migrations import newest_revision
from tests.doctor.conftest import settings_of, variables
from tests.support.databases import administrate
from tests.support.injectors import clock
from tests.support.injectors.masters import OUT_OF_MEMORY, READ_ONLY, client_of
from tests.support.injectors.standby import standby_of
from tests.support.program import CLAIMSVC, environment
from tests.support.proxy import proxy_to
from tests.support.waiting import until

# The tests' servers share a machine, which is always told.
ONE_HOST = "3 of them run on 127.0.0.1"
NEWEST = newest_revision()
NO_MORE_MAY_FAIL = Finding(Level.OK, "masters", "2 of 3 can vote; 0 more may fail")


def troubles(findings: Sequence[Finding]) -> list[tuple[Level, str]]:
    """Whatever is not well, each with its subject; slow answers too, unless the machine itself is to blame for them."""
    known = (ONE_HOST, "ms to answer")
    bad = [each for each in findings if each.level is not Level.OK and not any(word in each.found for word in known)]
    assert all(each.mend for each in bad)
    return [(each.level, f"{each.subject}: {each.found}") for each in bad]


async def only_trouble(settings: Settings) -> tuple[Level, str]:
    [trouble] = troubles(await examine(settings))
    return trouble


async def test_of_servers_that_are_as_they_should_be_nothing_is_wrong(
    sound: EmbeddedServices, sound_database_url: str
) -> None:
    findings = await examine(settings_of(sound_database_url, sound.redis_urls))
    assert troubles(findings) == []
    well = {f"{each.subject}: {each.found}" for each in findings if each.level is Level.OK}
    assert any(line.startswith("database: PostgreSQL 18.") for line in well)
    assert f"migrations: the schema is at revision {NEWEST}, the newest" in well
    assert "masters: 3 of 3 can vote; 1 more may fail" in well
    assert sum("Valkey 9." in line for line in well) == 3


@pytest.mark.parametrize(
    ("name", "value", "level", "found"),
    [
        ("maxmemory-policy", "allkeys-lru", Level.WARNING, "maxmemory-policy is allkeys-lru"),
        ("maxmemory-policy maxmemory", "volatile-ttl 100mb", Level.WRONG, "evicts locks when its memory is full"),
        ("appendonly", "no", Level.WRONG, "appendonly is no"),
        ("appendfsync", "everysec", Level.WARNING, "appendfsync is everysec"),
        ("maxclients", "20", Level.WRONG, "opens up to 35 connections, and maxclients is 20"),
    ],
)
async def test_a_master_that_is_set_up_wrong_is_found(
    sound: EmbeddedServices, sound_database_url: str, name: str, value: str, level: Level, found: str
) -> None:
    master = sound.masters[1]
    with client_of(master) as client:
        before = {each: str(client.config_get(each)[each]) for each in name.split()}
        for each, its_value in zip(name.split(), value.split(), strict=True):
            client.config_set(each, its_value)
        try:
            trouble = await only_trouble(settings_of(sound_database_url, sound.redis_urls))
        finally:
            for each, its_value in before.items():
                client.config_set(each, its_value)
    assert trouble[0] == level
    assert trouble[1].startswith(f"master 127.0.0.1:{master.port}: ")
    assert found in trouble[1]


@pytest.mark.slow
async def test_a_replica_is_no_master(sound: EmbeddedServices, sound_database_url: str) -> None:
    replica, copied = sound.masters[:2]
    with client_of(replica) as client, client_of(copied) as source:
        client.replicaof("127.0.0.1", str(copied.port))
        try:
            await until(lambda: source.info("replication")["connected_slaves"], "the other has a replica")
            await until(lambda: client.info("replication")["master_link_status"] == "up", "the replica copies it")
            findings = await examine(settings_of(sound_database_url, sound.redis_urls))
        finally:
            client.replicaof("NO", "ONE")
    assert NO_MORE_MAY_FAIL in findings
    assert troubles(findings) == [
        (Level.WRONG, f"master 127.0.0.1:{replica.port}: it is a replica of 127.0.0.1:{copied.port}"),
        (
            Level.WARNING,
            f"master 127.0.0.1:{copied.port}: it has a replica, which lacks the newest locks if it takes over",
        ),
    ]


async def test_a_master_that_takes_no_writes_is_found(sound: EmbeddedServices, sound_database_url: str) -> None:
    settings = settings_of(sound_database_url, sound.redis_urls)
    OUT_OF_MEMORY.inflict(sound.masters[0])
    try:
        findings = await examine(settings)
    finally:
        OUT_OF_MEMORY.heal(sound.masters[0])
    [(level, found)] = troubles(findings)
    assert NO_MORE_MAY_FAIL in findings
    assert (level, "it refuses writes: " in found, "maxmemory" in found) == (Level.WRONG, True, True)
    READ_ONLY.inflict(sound.masters[0])
    try:
        [(level, found)] = troubles(await examine(settings))
    finally:
        READ_ONLY.heal(sound.masters[0])
    assert (level, "is a replica of" in found) == (Level.WRONG, True)


@pytest.mark.parametrize(("end", "mend"), [("stop", "start"), ("pause", "resume")])
async def test_masters_that_do_not_answer_are_named_and_everything_else_is_checked(
    sound: EmbeddedServices, sound_database_url: str, end: str, mend: str
) -> None:
    settings = settings_of(sound_database_url, sound.redis_urls, redis_timeout_seconds=0.5)
    first, second, _ = sound.masters
    getattr(first, end)()
    try:
        level, found = await only_trouble(settings)
        assert (level, found.startswith(f"master 127.0.0.1:{first.port}: it cannot be used")) == (Level.WRONG, True)
        getattr(second, end)()
        try:
            begun = time.monotonic()
            findings = await examine(settings)
            assert time.monotonic() - begun < 10
        finally:
            getattr(second, mend)()
    finally:
        getattr(first, mend)()
    assert [level for level, _ in troubles(findings)] == [Level.WRONG] * 3
    assert "1 of 3 can vote, not a majority" in troubles(findings)[-1][1]
    assert any(each.subject == "migrations" and each.level is Level.OK for each in findings)


async def test_one_server_under_two_names_is_found(sound: EmbeddedServices, sound_database_url: str) -> None:
    port = sound.masters[0].port
    urls = (*sound.redis_urls[:2], f"redis://localhost:{port}/1")
    findings = await examine(settings_of(sound_database_url, urls))
    assert NO_MORE_MAY_FAIL in findings
    assert troubles(findings)[0] == (
        Level.WRONG,
        f"masters: 127.0.0.1:{port} and localhost:{port} are the same server: its one vote counts 2 times",
    )


async def test_a_single_master_is_a_warning(sound: EmbeddedServices, sound_database_url: str) -> None:
    level, found = await only_trouble(settings_of(sound_database_url, sound.redis_urls[:1]))
    assert (level, "there is only one" in found) == (Level.WARNING, True)


async def test_a_master_and_a_database_that_are_far_away_are_warnings(
    sound: EmbeddedServices, sound_database_url: str
) -> None:
    assert sound.postgres is not None
    async with (
        proxy_to("127.0.0.1", sound.masters[0].port) as to_master,
        proxy_to("127.0.0.1", sound.postgres.port) as to_database,
    ):
        to_master.delay_seconds = to_database.delay_seconds = 0.05
        urls = (f"redis://localhost:{to_master.port}/0", *sound.redis_urls[1:])
        far = sound_database_url.replace(f":{sound.postgres.port}/", f":{to_database.port}/")
        findings = await examine(settings_of(far, urls))
    slow = {each.subject for each in findings if each.level is Level.WARNING and "ms to answer" in each.found}
    assert slow >= {"database", f"master localhost:{to_master.port}"}


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("ALTER DATABASE {} SET synchronous_commit = off", "synchronous_commit is off"),
        ("ALTER DATABASE {} SET default_transaction_read_only = on", "its transactions are read-only"),
    ],
)
async def test_a_database_that_is_set_up_wrong_is_found(
    sound: EmbeddedServices, sound_database_url: str, statement: str, found: str
) -> None:
    assert sound.postgres is not None
    administrate(sound.postgres.url_of("postgres"), statement.format(sound_database_url.rpartition("/")[2]))
    level, told = await only_trouble(settings_of(sound_database_url, sound.redis_urls))
    assert (level, told.startswith(f"database: {found}")) == (Level.WRONG, True)


async def test_a_database_that_does_without_its_disk_is_found(
    services: EmbeddedServices, sound: EmbeddedServices, template_database: str
) -> None:
    """As the other tests' own PostgreSQL does, for speed."""
    assert services.postgres is not None
    settings = settings_of(services.postgres.url_of(template_database), sound.redis_urls)
    found = [told for level, told in troubles(await examine(settings)) if level is Level.WRONG]
    assert [told.split(":")[1] for told in found] == [
        " synchronous_commit is off",
        " fsync is off",
        " full_page_writes is off",
    ]


@pytest.mark.parametrize(
    ("statement", "level", "found"),
    [
        ("UPDATE alembic_version SET version_num = '0002'", Level.WRONG, f"at revision 0002, not {NEWEST}"),
        (
            "UPDATE alembic_version SET version_num = '9999'",
            Level.WARNING,
            f"at revision 9999, newer than this version's {NEWEST}",
        ),
        ("DELETE FROM alembic_version", Level.WRONG, "the schema is missing"),
        ("DROP TABLE alembic_version", Level.WRONG, "the schema is missing"),
    ],
)
async def test_a_schema_of_another_version_is_found(
    sound: EmbeddedServices, sound_database_url: str, statement: str, level: Level, found: str
) -> None:
    administrate(sound_database_url, statement)
    told = await only_trouble(settings_of(sound_database_url, sound.redis_urls))
    assert (told[0], told[1].startswith("migrations: "), found in told[1]) == (level, True, True)


async def test_a_missing_index_for_searches_is_found(sound: EmbeddedServices, sound_database_url: str) -> None:
    administrate(sound_database_url, "DROP INDEX coupons_name_trgm_idx")
    level, told = await only_trouble(settings_of(sound_database_url, sound.redis_urls))
    assert (level, "the index for searches of coupons is missing" in told) == (Level.WARNING, True)


@pytest.mark.parametrize(
    ("pool_size", "level", "found"),
    [
        (98, Level.WARNING, "up to 200 connections and 200 are available: a second instance does not fit"),
        (99, Level.WRONG, "an instance opens up to 202 connections and 200 are available"),
    ],
)
async def test_more_connections_than_postgresql_has_are_found(
    sound: EmbeddedServices, sound_database_url: str, pool_size: int, level: Level, found: str
) -> None:
    settings = settings_of(sound_database_url, sound.redis_urls, workers=2, database_pool_size=pool_size)
    told = await only_trouble(settings)
    assert (told[0], found in told[1]) == (level, True)


async def test_the_limit_of_a_role_counts_too(sound: EmbeddedServices, sound_database_url: str) -> None:
    assert sound.postgres is not None
    administrate(
        sound.postgres.url_of("postgres"),
        "CREATE ROLE few LOGIN PASSWORD 'few' CONNECTION LIMIT 7 IN ROLE pg_read_all_data",
    )
    administrate(sound.postgres.url_of("postgres"), "ALTER ROLE few SET log_error_verbosity = terse")
    place = sound_database_url.rpartition("@")[2]
    level, told = await only_trouble(settings_of(f"postgresql://few:few@{place}", sound.redis_urls))
    administrate(sound.postgres.url_of("postgres"), "DROP ROLE few")
    assert (level, "up to 12 connections and 7 are available" in told) == (Level.WRONG, True)


@pytest.mark.parametrize(
    "mend",
    ["ALTER ROLE plain SET log_error_verbosity = terse", "GRANT SET ON PARAMETER log_error_verbosity TO plain"],
    ids=["set for the role", "set by the session"],
)
async def test_a_log_that_names_users_is_found(sound: EmbeddedServices, sound_database_url: str, mend: str) -> None:
    assert sound.postgres is not None
    server = sound.postgres.url_of("postgres")
    administrate(server, "CREATE ROLE plain LOGIN PASSWORD 'plain' IN ROLE pg_read_all_data")
    settings = settings_of(f"postgresql://plain:plain@{sound_database_url.rpartition('@')[2]}", sound.redis_urls)
    try:
        level, told = await only_trouble(settings)
        assert (level, "log_error_verbosity is default" in told) == (Level.WARNING, True)
        administrate(server, mend)
        assert troubles(await examine(settings)) == []
    finally:
        administrate(server, "DROP OWNED BY plain")
        administrate(server, "DROP ROLE plain")


@contextmanager
def stopped(postgres: PostgresServer) -> Iterator[None]:
    postgres.stop()
    try:
        yield
    finally:
        postgres.start()


@contextmanager
def paused(postgres: PostgresServer) -> Iterator[None]:
    postgres.pause()
    try:
        yield
    finally:
        postgres.resume()


@pytest.mark.parametrize("fault", [stopped, paused])
async def test_a_database_that_does_not_answer_is_told_in_time_and_the_masters_are_checked(
    sound: EmbeddedServices, fault: Callable[[PostgresServer], Any]
) -> None:
    assert sound.postgres is not None
    settings = settings_of(sound.database_url, sound.redis_urls, database_connect_timeout_seconds=2)
    with fault(sound.postgres):
        begun = time.monotonic()
        findings = await examine(settings)
        assert time.monotonic() - begun < 15
    [(level, found)] = troubles(findings)
    assert (level, found.startswith("database: it cannot be used: ")) == (Level.WRONG, True)
    assert "masters: 3 of 3 can vote; 1 more may fail" in {f"{each.subject}: {each.found}" for each in findings}
    assert sound.postgres.url.split(":")[2].split("@")[0] not in str(findings), "the password"


async def test_a_wrong_password_is_told_in_postgresqls_words_without_it(sound: EmbeddedServices) -> None:
    place = sound.database_url.rpartition("@")[2]
    settings = settings_of(f"postgresql://claimsvc:a-secret@{place}", sound.redis_urls)
    _, found = await only_trouble(settings)
    assert "password authentication failed" in found
    assert "a-secret" not in found


@pytest.mark.slow
def test_a_standby_is_no_primary() -> None:
    with (
        temporary_state_dir() as state,
        embedded_services(state / "primary", masters=1, durable=False) as services,
        standby_of(services, state / "standby") as standby,
    ):
        found = troubles(asyncio.run(examine(settings_of(standby.url, services.redis_urls))))
    assert (Level.WRONG, "database: it is a standby and takes no writes") in found


@pytest.mark.skipif(clock.why_not() is not None, reason=str(clock.why_not()))
def test_a_clock_that_is_off_is_found_wherever_it_is(sound_database_url: str, sound: EmbeddedServices) -> None:
    with temporary_state_dir() as folder:
        settings = settings_of(sound_database_url, sound.redis_urls)
        with clock.jumping_clock(sound.masters[2], folder) as jumping:
            jumping.jump_to(-30)
            level, found = asyncio.run(only_trouble(settings))
            assert level is Level.WARNING
            assert found.startswith(f"master 127.0.0.1:{sound.masters[2].port}: its clock is 30.0 s behind")
            # To a machine that is off itself, everybody else is.
            jumping.jump_to(0)
            offset = folder / "mine"
            offset.write_bytes((-60_000).to_bytes(8, "little", signed=True))
            [shim] = folder.glob("*.so")
            told = subprocess.run(
                [*CLAIMSVC, "doctor"],
                env={**environment(variables(settings)), "LD_PRELOAD": str(shim), "FAULT_CLOCK_FILE": str(offset)},
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
    assert told.returncode == 0, told.stdout
    assert told.stdout.count("its clock is 60.0 s ahead of this machine's") == 4


@pytest.mark.parametrize(
    ("quotas", "found"),
    [
        ({"quota_user": "10/60"}, ""),
        ({"quota_address": "10/60"}, "behind a proxy that is the proxy's, for all users"),
        ({"quota_address": "10/60", "trusted_proxies": "10.0.0.0/8"}, ""),
        ({"quota_address": "10/60", "trusted_proxies": "10.0.0.0/8,::/0"}, "any client can forge its address"),
    ],
)
def test_a_quota_that_takes_one_client_for_another_is_found(quotas: dict[str, str], found: str) -> None:
    masters = ("redis://a", "redis://b", "redis://c")
    told = troubles(list(judge_settings(settings_of("postgresql://user:password@host/db", masters, **quotas))))
    assert len(told) == bool(found)
    assert all(level is Level.WARNING and found in text for level, text in told)
