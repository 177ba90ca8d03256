"""What the console says in incidents staged on real servers: within ten seconds, and the same until they end."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import psycopg
import pytest

from claimsvc.bootstrap import application, migrate
from claimsvc.config import Settings
from claimsvc.embedded import EmbeddedServices, embedded_services, temporary_state_dir
from claimsvc.http.framework.services import SERVICES
from claimsvc.observability.console import Live
from tests.observability.console.watching import Instance, Watcher, coupon
from tests.support.admin import ADMIN_DIGEST
from tests.support.injectors.postgres import connect
from tests.support.instance import Instance as Process
from tests.support.serving import served
from tests.support.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("staged")]

# A cause needs six seconds, and this machine a few more.
_CAUSE_SECONDS = 20.0


@pytest.fixture(scope="module")
def own() -> Iterator[EmbeddedServices]:
    """Servers that are stopped, so nobody else uses them. A test mends what it breaks."""
    with temporary_state_dir() as state_dir, embedded_services(state_dir, masters=3, durable=False) as services:
        migrate(services.database_url)
        yield services


@pytest.fixture
def own_settings(own: EmbeddedServices) -> Settings:
    return Settings(
        database_url=own.database_url,
        redis_urls=own.redis_urls,
        admin_keys=(ADMIN_DIGEST,),
        redis_timeout_seconds=1.5,  # other tests run on the same machine, and their load is no incident of ours
    )


@asynccontextmanager
async def instances(settings: Settings, number: int) -> AsyncIterator[list[Instance]]:
    """So many instances in this process."""
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=30))
        )
        started = []
        for _ in range(number):
            app = await stack.enter_async_context(application(settings))
            port = await stack.enter_async_context(served(app, header_timeout_seconds=10))
            live = app[SERVICES].live
            assert isinstance(live, Live)
            started.append(Instance(f"http://127.0.0.1:{port}", live, client))
        yield started


def url_of(services: EmbeddedServices) -> str:
    return services.database_url.replace("+psycopg", "")


def kinds_since(watcher: Watcher, place: int) -> list[str]:
    """The kinds of the sentences from that picture on, each as often as it began."""
    kinds = [picture["verdict"]["kind"] for picture in watcher.pictures[place:]]
    return kinds[:1] + [kind for before, kind in pairwise(kinds) if kind != before]


async def test_a_stopped_postgresql_is_named_within_ten_seconds_and_its_return_too(
    own: EmbeddedServices, own_settings: Settings
) -> None:
    assert own.postgres is not None
    async with instances(own_settings, 2) as [here, there], here.watched() as watcher:
        await here.create("stopped", 100_000)
        async with there.claiming("stopped", 2):
            await watcher.sees(lambda seen: coupon(seen, "stopped").get("outcomes", {}).get("claimed"))
            stopped_at = time.time()
            await asyncio.to_thread(own.postgres.stop)
            try:
                seen = await watcher.sees(says("Not ready: PostgreSQL does not answer since"), 10.0)
                assert time.time() - stopped_at < 10
                assert abs(seen["verdict_since"] - stopped_at) < 5
                assert seen["verdict"]["level"] == "bad"
                assert "no server listens" in seen["verdict"]["evidence"]
                assert [row["health"]["postgresql"]["is_up"] for row in seen["picture"]["instances"]] == [False, False]
                # It stays the first thing that is said, though claims fail, and the stock grows old.
                place = len(watcher.pictures)
                seen = await watcher.sees(lambda seen: seen["picture"]["stock_age_seconds"] >= 8)
                assert kinds_since(watcher, place) == [seen["verdict"]["kind"]]
            finally:
                await asyncio.to_thread(own.postgres.start)
            await watcher.sees(lambda seen: not seen["verdict"]["text"].startswith("Not ready"), 10.0)
        # Enough claims failed that the alert pages: it is not said to be quiet.
        seen = await watcher.sees(lambda seen: not seen["picture"]["outcomes"] and not seen["picture"]["failed"], 20.0)
        assert "Claims failed until" in seen["verdict"]["text"]


def says(words: str) -> Any:
    return lambda seen: words in seen["verdict"]["text"]


async def test_an_outsider_that_holds_a_row_is_named_with_its_pid(
    own: EmbeddedServices, own_settings: Settings
) -> None:
    async with instances(own_settings, 2) as [here, there], here.watched() as watcher:
        await here.create("held", 100_000)
        async with here.claiming("held", 2), there.claiming("held", 2):
            await watcher.sees(lambda seen: coupon(seen, "held").get("outcomes", {}).get("claimed"))
            with psycopg.connect(url_of(own), application_name="psql") as outsider:
                outsider.execute("SELECT FROM coupons WHERE name = 'held' FOR UPDATE")
                began = time.monotonic()
                named = f"held: its row in PostgreSQL is held by pid {outsider.info.backend_pid} (psql, user "
                seen = await watcher.sees(says(named), _CAUSE_SECONDS)
                assert time.monotonic() - began > 5  # not for less than most of ten seconds
                assert f"pg_terminate_backend({outsider.info.backend_pid})" in seen["verdict"]["advice"]
                assert "idle in transaction" in seen["verdict"]["evidence"]
                place = len(watcher.pictures)
                await until(lambda: time.monotonic() - began > 30, "it has held it for 30 s", within_seconds=40)
                shown = watcher.pictures[place:]
                assert all("its row in PostgreSQL is held by" in each["verdict"]["text"] for each in shown)
                assert len(kinds_since(watcher, place)) <= 2  # `failing` comes when it was often enough
                assert seen["verdict"]["level"] == "bad"
            await watcher.sees(lambda seen: "is held by" not in seen["verdict"]["text"], _CAUSE_SECONDS)


@asynccontextmanager
async def slow_commits(services: EmbeddedServices, seconds: float) -> AsyncIterator[None]:
    """Each transaction that claims waits that long in its COMMIT, as for a slow disk."""
    slow = f"""
        CREATE FUNCTION slow_commit() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF coalesce(current_setting('test.slept', true), '') <> txid_current()::text THEN
                PERFORM set_config('test.slept', txid_current()::text, true), pg_sleep({seconds});
            END IF;
            RETURN NULL;
        END $$;
        CREATE CONSTRAINT TRIGGER slow_commit AFTER INSERT ON user_claims DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION slow_commit()"""
    with connect(url_of(services)) as session:
        session.execute(slow.encode())
        try:
            yield
        finally:
            session.execute("DROP TRIGGER slow_commit ON user_claims")
            session.execute("DROP FUNCTION slow_commit")


async def test_a_slow_disk_of_postgresql_is_whose_time_it_is(own: EmbeddedServices, own_settings: Settings) -> None:
    async with instances(own_settings, 2) as [here, there], here.watched() as watcher:
        await here.create("flushed", 100_000)
        async with here.claiming("flushed", 3), there.claiming("flushed", 3):
            await watcher.sees(lambda seen: coupon(seen, "flushed").get("outcomes", {}).get("claimed"))
            async with slow_commits(own, 0.3):
                began = time.monotonic()
                seen = await watcher.sees(says("Claims are slow, because they wait for PostgreSQL"), _CAUSE_SECONDS)
                assert time.monotonic() - began > 5
                assert seen["picture"]["times"]["blame"] == "postgresql"
                place = len(watcher.pictures)
                await asyncio.sleep(8)
                assert kinds_since(watcher, place) == ["slow-postgresql"]
                [seen] = watcher.pictures[-1:]
                # The sentence and the figures below it are of one picture.
                assert f"a transaction takes {seen['picture']['transaction_ms']:.0f} ms" in seen["verdict"]["text"]
            await watcher.sees(lambda seen: "PostgreSQL" not in seen["verdict"]["text"], _CAUSE_SECONDS)


async def test_a_master_that_is_lost_is_named_and_claims_go_on(own: EmbeddedServices, own_settings: Settings) -> None:
    async with instances(own_settings, 2) as [here, there], here.watched() as watcher:
        await here.create("mastered", 100_000)
        async with there.claiming("mastered", 1):
            await watcher.sees(lambda seen: coupon(seen, "mastered").get("outcomes", {}).get("claimed"))
            await asyncio.to_thread(own.masters[1].stop)
            try:
                seen = await watcher.sees(says("1 of 3 masters is down: claims continue"), 10.0)
                assert own.redis_urls[1].rpartition("/")[2] in seen["verdict"]["evidence"]
                assert coupon(seen, "mastered")["outcomes"].get("claimed")
            finally:
                await asyncio.to_thread(own.masters[1].start)
            await watcher.sees(lambda seen: "masters" not in seen["verdict"]["text"], 10.0)


async def test_several_equal_coupons_are_no_single_cause_and_nothing_flickers(own_settings: Settings) -> None:
    names = ["equal-a", "equal-b", "equal-c", "equal-d"]
    async with instances(own_settings, 2) as [here, there], here.watched() as watcher, AsyncExitStack() as stack:
        for name in names:
            await here.create(name, 100_000)
            for instance in (here, there):
                await stack.enter_async_context(instance.claiming(name, 3))
        await watcher.sees(lambda seen: len(seen["picture"]["coupons"]) >= 4)
        await asyncio.sleep(12)
        place = len(watcher.pictures)
        await asyncio.sleep(12)
        assert len(kinds_since(watcher, place)) <= 3
        for seen in watcher.pictures[place:]:
            assert not any(seen["verdict"]["text"].startswith(f"{name} is") for name in names), seen["verdict"]
        orders = [[row["name"] for row in seen["picture"]["coupons"][:4]] for seen in watcher.pictures[place:]]
        changes = sum(order != before for before, order in pairwise(orders))
        assert changes <= 12  # once a second at most


async def test_a_paused_instance_is_named_and_every_viewer_gives_it_the_same_letter(
    own: EmbeddedServices, own_settings: Settings, tmp_path: Path
) -> None:
    variables = {
        "CLAIMSVC_DATABASE_URL": own.database_url,
        "CLAIMSVC_REDIS_URLS": ",".join(own.redis_urls),
        "CLAIMSVC_REDIS_TIMEOUT_SECONDS": "0.3",
    }
    process = Process("paused", variables, tmp_path / "log")
    async with instances(own_settings, 1) as [here]:
        await process.start()
        async with instances(own_settings, 1) as [there], here.watched() as one, there.watched() as other:
            try:
                for watcher in (one, other):
                    await watcher.sees(lambda seen: len(seen["picture"]["instances"]) == 3)
                ids = [[row["id"] for row in each.pictures[-1]["picture"]["instances"]] for each in (one, other)]
                assert ids[0] == ids[1]
                assert [row["is_here"] for row in one.pictures[-1]["picture"]["instances"]] == [True, False, False]
                assert [row["is_here"] for row in other.pictures[-1]["picture"]["instances"]] == [False, False, True]
                process.pause()
                for watcher in (one, other):
                    seen = await watcher.sees(says("is silent for"), 10.0)
                    assert f":{process.pid} is silent for" in seen["verdict"]["text"]
                    assert seen["picture"]["instances"][1]["silent_seconds"] > 0
                process.resume()
                await one.sees(lambda seen: "silent" not in seen["verdict"]["text"], 10.0)
            finally:
                process.close()
