"""The console's stream over HTTP, on real instances: what it tells, to how many, and how it ends."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from aiohttp import web
from redis.asyncio import Redis

from claimsvc.bootstrap import application
from claimsvc.config import Settings
from claimsvc.domain import Coupon
from claimsvc.embedded import embedded_services, temporary_state_dir
from claimsvc.errors import UnavailableError
from claimsvc.http.app import create_runner
from claimsvc.http.framework.services import SERVICES
from claimsvc.observability.console.relay import CHANNEL
from tests.observability.console.conftest import Open
from tests.observability.console.watching import Instance, coupon, most_within
from tests.support.serving import served
from tests.support.waiting import quickest, until


async def test_the_first_figures_come_within_a_second_under_load(instance: Instance) -> None:
    await instance.create("spring", 100_000)
    async with instance.claiming("spring"):
        await instance.claim("spring", 50)

        async def first_figures() -> float:
            started = time.monotonic()
            async with instance.watched() as watcher:
                await watcher.sees(lambda seen: coupon(seen, "spring").get("outcomes", {}).get("claimed", 0) > 0)
                return time.monotonic() - started

        assert await quickest(first_figures, 1.0) < 1.0


async def test_ten_pictures_come_in_a_second_while_something_happens(instance: Instance) -> None:
    await instance.create("spring", 1_000_000)
    async with instance.claiming("spring"), instance.watched() as watcher:
        # 20 in two seconds, less what a busy machine swallows.
        await until(lambda: most_within(watcher.picture_times, 2.0) >= 14, "pictures come as often as they should")


async def test_a_quiet_service_says_about_once_a_second_that_it_lives(instance: Instance) -> None:
    async with instance.watched() as watcher:
        await watcher.sees(lambda seen: seen["verdict"]["level"] == "quiet")
        before = len(watcher.events)
        await until(lambda: len(watcher.events) >= before + 4, "it says so")
        assert most_within(watcher.event_times[before:], 1.7) <= 2


async def test_stock_drains_in_the_pictures_until_it_is_sold_out(instance: Instance) -> None:
    await instance.create("spring", 40)
    async with instance.watched() as watcher:
        await instance.claim("spring", 10)
        await watcher.sees(lambda seen: coupon(seen, "spring").get("remaining") == 30)
        await instance.claim("spring", 50)
        seen = await watcher.sees(lambda seen: coupon(seen, "spring").get("remaining") == 0)
        assert coupon(seen, "spring")["amount"] == 40
        await watcher.sees(lambda seen: "spring is sold out" in texts(seen))
        assert "spring was created with 40 units" in texts(watcher.pictures[-1])


async def test_one_instance_shows_what_another_does(open_instance: Open) -> None:
    here, there = await open_instance(), await open_instance()
    await here.create("spring", 100_000)
    async with here.watched() as watcher, there.claiming("spring"):
        seen = await watcher.sees(lambda seen: coupon(seen, "spring").get("turns"))
        instances = seen["picture"]["instances"]
        assert [row["is_here"] for row in instances] == [True, False]
        # The lock was held by the second of them alone.
        assert [place for place, _ in coupon(seen, "spring")["turns"]] == [1]
        assert instances[1]["rate"] > 0 == instances[0]["rate"]
        assert seen["picture"]["hears_others"]


async def test_two_instances_that_take_turns_are_said_to_contend(open_instance: Open) -> None:
    here, there = await open_instance(), await open_instance()
    await here.create("spring", 100_000)
    async with here.claiming("spring", 5), there.claiming("spring", 5), here.watched() as watcher:
        seen = await watcher.sees(
            lambda seen: "spring is contended: 2 instances" in seen["verdict"]["text"],
            within_seconds=25.0,  # a cause is said after most of ten seconds
        )
        times = seen["picture"]["times"]
        assert sum(times[name] for name in ("lock", "redis", "postgresql", "service")) == pytest.approx(1, abs=0.01)
        assert coupon(seen, "spring")["waiting_share"] > 0
        # Each is seen to hold it at some moment of the window; on a busy machine not in the very first.
        await watcher.sees(lambda seen: len(coupon(seen, "spring").get("turns", ())) == 2)


@pytest.mark.slow
async def test_nothing_is_published_while_nobody_watches(open_instance: Open, redis_urls: tuple[str, ...]) -> None:
    here, there = await open_instance(), await open_instance()
    await here.create("spring", 100_000)

    async def has_asked_again() -> None:
        """Whether anybody listens: each of the two, more than once."""
        before = await questions(redis_urls)

        async def has_asked() -> bool:
            return await questions(redis_urls) >= before + 6

        await until(has_asked, "both have asked who listens")

    async with there.claiming("spring"):
        await has_asked_again()
        assert (here.live.published, there.live.published) == (0, 0)
        async with here.watched() as watcher:
            await watcher.sees(lambda seen: len(seen["picture"]["instances"]) == 2)
            assert here.live.published == 0  # nobody else listens

        async def nobody_listens() -> bool:
            return not await subscribers(redis_urls)

        await until(nobody_listens, "the subscriptions are gone")
        await has_asked_again()
        published = there.live.published
        assert published > 0
        await has_asked_again()
        assert there.live.published == published


@pytest.mark.slow
async def test_without_redis_an_instance_shows_itself_alone_and_says_so(settings: Settings) -> None:
    with (
        temporary_state_dir() as state_dir,
        embedded_services(state_dir, masters=3, database_url=settings.database_url, durable=False) as services,
    ):
        own = settings.model_copy(update={"redis_urls": services.redis_urls, "redis_timeout_seconds": 0.2})
        async with application(own) as app, served(app) as port, aiohttp.ClientSession() as client:
            live = app[SERVICES].live
            assert live is not None
            instance = Instance(f"http://127.0.0.1:{port}", live, client)
            async with instance.watched() as watcher:
                await watcher.sees(lambda seen: seen["picture"]["hears_others"])
                for master in services.masters:
                    os.kill(master.pid, signal.SIGSTOP)
                try:
                    seen = await watcher.sees(lambda seen: not seen["picture"]["hears_others"])
                    assert [row["is_here"] for row in seen["picture"]["instances"]] == [True]
                    await watcher.sees(lambda seen: "3 of 3 masters are down" in seen["verdict"]["text"])
                finally:
                    for master in services.masters:
                        os.kill(master.pid, signal.SIGCONT)
                await watcher.sees(lambda seen: seen["picture"]["hears_others"])
                await watcher.sees(lambda seen: seen["verdict"]["level"] == "quiet")


async def test_an_instance_that_stops_is_no_longer_shown(open_instance: Open, settings: Settings) -> None:
    here = await open_instance()
    async with here.watched() as watcher:
        async with application(settings):
            await watcher.sees(lambda seen: len(seen["picture"]["instances"]) == 2)
        seen = await watcher.sees(lambda seen: len(seen["picture"]["instances"]) == 1, within_seconds=2.4)
        assert seen["picture"]["instances"][0]["is_here"]


async def test_more_viewers_than_an_instance_takes_are_refused_until_one_leaves(instance: Instance) -> None:
    instance.live.most_viewers = 2
    async with instance.watched():
        async with instance.watched():
            async with instance.client.get(f"{instance.url}/console/events") as answer:
                problem = await answer.json(content_type=None)
                assert (answer.status, problem["type"]) == (503, "/problems/too-many-viewers")
                assert answer.headers["Retry-After"] == "5"
            async with instance.client.head(f"{instance.url}/console/events") as answer:
                assert answer.status == 503
        await until(lambda: instance.live.viewers == 1, "it has left")
        async with instance.watched() as watcher:
            await watcher.sees(lambda _: True)


async def test_one_address_cannot_lock_the_others_out(instance: Instance) -> None:
    instance.live.most_of_address = 2
    async with instance.watched(), instance.watched():
        async with instance.client.get(f"{instance.url}/console/events") as answer:
            problem = await answer.json(content_type=None)
            assert (answer.status, problem["type"]) == (503, "/problems/too-many-viewers")
            assert "Your address has 2 viewers" in problem["detail"]
        elsewhere = aiohttp.TCPConnector(local_addr=("127.0.0.2", 0))
        async with (
            aiohttp.ClientSession(connector=elsewhere) as client,
            client.get(f"{instance.url}/console/events") as answer,
        ):
            assert answer.status == 200


async def test_a_head_request_is_no_viewer(instance: Instance) -> None:
    async with instance.client.head(f"{instance.url}/console/events") as answer:
        assert answer.status == 200
    assert instance.live.viewers == 0


async def test_a_viewer_that_reads_nothing_misses_pictures_and_holds_up_nobody(instance: Instance) -> None:
    await instance.create("spring", 1_000_000)
    address = urlsplit(instance.url)
    slow = socket.create_connection((address.hostname, address.port))
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    slow.sendall(b"GET /console/events HTTP/1.1\r\nHost: here\r\n\r\n")
    await until(lambda: instance.live.viewers, "it watches")
    [viewer] = instance.live._viewers
    transport: Any = viewer._transport  # type: ignore[attr-defined]
    # What the system keeps for it is bounded as well: it takes twice what it is told, and no megabytes.
    kept = transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    assert kept <= 4 * 64 * 1024
    async with instance.claiming("spring"), instance.watched() as watcher:
        # Past what the kernel buffers for it, which is most of what it will ever get.
        enough = b"event: picture\ndata: %b\n\n" % (b"x" * 4_000_000)
        await viewer.send(enough)
        buffered = transport.get_write_buffer_size()
        assert buffered > 0
        before = len(watcher.pictures)
        await watcher.sees(lambda _: len(watcher.pictures) > before + 10)
        assert transport.get_write_buffer_size() <= buffered
    slow.close()


async def test_open_streams_do_not_hold_up_the_end(settings: Settings) -> None:
    async with application(settings) as app, aiohttp.ClientSession() as client:
        runner = create_runner(app, header_timeout_seconds=5, shutdown_grace_seconds=30)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        live = app[SERVICES].live
        assert live is not None
        instance = Instance(f"http://127.0.0.1:{runner.addresses[0][1]}", live, client)
        async with instance.watched() as one, instance.watched() as other:
            await one.sees(lambda _: True)
            await other.sees(lambda _: True)
            started = time.monotonic()
            await site.stop()
            await runner.give_drain_notice(1.0)
            await runner.cleanup()
            assert time.monotonic() - started < 15  # half of what requests are given
            for watcher in (one, other):
                await asyncio.wait_for(watcher.ended.wait(), 20)
                assert watcher.events[-1] == "farewell"


async def test_a_crowd_that_comes_at_once_finds_the_same_limit(instance: Instance) -> None:
    instance.live.most_viewers = 10

    async def come() -> aiohttp.ClientResponse:
        return await instance.client.get(f"{instance.url}/console/events")

    answers = await asyncio.gather(*(come() for _ in range(60)))
    try:
        statuses = [answer.status for answer in answers]
        assert (statuses.count(200), statuses.count(503)) == (10, 50)
        assert instance.live.viewers == 10
    finally:
        for answer in answers:
            answer.close()
    await until(lambda: not instance.live.viewers, "all who are gone have lost their places")


class Broken:
    """A viewer with a defect."""

    ended = False

    async def send(self, frame: bytes) -> bool:
        raise RuntimeError("a defect")

    def end(self) -> None:
        self.ended = True


async def test_a_viewer_that_breaks_keeps_pictures_from_nobody(instance: Instance) -> None:
    broken = Broken()
    instance.live.join(broken)
    async with instance.watched() as watcher:
        await watcher.sees(lambda seen: seen["viewers"] == 1)
        assert broken.ended


@pytest.mark.parametrize(
    "request_head",
    [
        b"GET /console/events HTTP/1.0\r\n\r\n",
        b"GET /console/events HTTP/1.1\r\nHost: here\r\nLast-Event-ID: '; DROP \xc3\xa9\r\n\r\n",
    ],
    ids=["HTTP/1.0", "a last event that never was"],
)
async def test_old_and_odd_clients_get_the_same_stream(instance: Instance, request_head: bytes) -> None:
    address = urlsplit(instance.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(request_head)
    async with asyncio.timeout(20):
        assert b" 200 " in await reader.readline()
        while not (await reader.readline()).startswith(b"event: picture"):
            pass
    writer.close()
    await until(lambda: not instance.live.viewers, "it has lost its place")


async def test_the_stream_is_only_to_be_read(instance: Instance) -> None:
    for method in ("POST", "PUT", "DELETE"):
        async with instance.client.request(method, f"{instance.url}/console/events") as answer:
            assert answer.status == 405


async def test_who_holds_a_lock_that_nobody_here_has_is_named(instance: Instance, redis_urls: tuple[str, ...]) -> None:
    await instance.create("spring", 100)
    await instance.claim("spring")
    async with AsyncExitStack() as stack:
        masters = [await stack.enter_async_context(Redis.from_url(url)) for url in redis_urls]
        for master in masters:
            await master.set("claim:coupon:spring", "web-9:7:c0ffee/1", px=20_000)
        async with instance.claiming("spring", 2), instance.watched() as watcher:
            seen = await watcher.sees(lambda seen: "web-9:7:c0ffee" in seen["verdict"]["evidence"], within_seconds=20.0)
            assert "no known instance holds it" in seen["verdict"]["text"]
            assert "unknown here" in seen["verdict"]["evidence"]
            assert coupon(seen, "spring")["lock"] == "stranger"
            for master in masters:
                await master.delete("claim:coupon:spring")


async def test_stock_that_cannot_be_read_is_said_to_be_old(instance: Instance) -> None:
    await instance.create("spring", 100)
    await instance.claim("spring")
    async with instance.watched() as watcher:
        await watcher.sees(lambda seen: coupon(seen, "spring").get("remaining") == 99)

        async def no_answer(names: Sequence[str]) -> list[Coupon]:
            raise UnavailableError("no answer", dependency="postgresql")

        read, instance.live._read_stock = instance.live._read_stock, no_answer
        seen = await watcher.sees(lambda seen: seen["picture"]["stock_age_seconds"] >= 2)
        assert coupon(seen, "spring")["remaining"] == 99
        instance.live._read_stock = read
        await watcher.sees(lambda seen: seen["picture"]["stock_age_seconds"] == 0)


async def test_a_process_that_ends_and_is_followed_by_another_is_told(open_instance: Open, settings: Settings) -> None:
    here = await open_instance()
    async with here.watched() as watcher:
        async with application(settings):
            await watcher.sees(lambda seen: len(seen["picture"]["instances"]) == 2)
        await watcher.sees(lambda seen: any("has stopped" in text for text in texts(seen)))
        began = watcher.pictures[-1]["picture"]["instances"][0]["started_at"]
        assert 0 <= time.time() - began < 120


async def test_every_file_of_the_page_is_served_under_a_strict_policy(instance: Instance) -> None:
    names = [file.name for file in (files("claimsvc.http.resources.console") / "static").iterdir()]
    assert "main.js" in names
    for path in ("/console", *(f"/console/{name}" for name in names)):
        async with instance.client.get(f"{instance.url}{path}") as answer:
            assert answer.status == 200
            policy = answer.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            etag = answer.headers["ETag"]
        async with instance.client.get(f"{instance.url}{path}", headers={"If-None-Match": etag}) as answer:
            assert answer.status == 304
    async with instance.client.get(f"{instance.url}/console/no-such.js") as answer:
        assert answer.status == 404


async def test_there_is_no_stress_test_outside_development(instance: Instance) -> None:
    async with instance.client.post(f"{instance.url}/console/stress-test", json={"scenario": "stampede"}) as answer:
        assert answer.status in (404, 405)
    async with instance.watched() as watcher:
        assert (await watcher.sees(lambda _: True))["scenarios"] == []


def texts(message: dict[str, Any]) -> list[str]:
    return [event["text"] for event in message["picture"]["events"]]


async def questions(redis_urls: tuple[str, ...]) -> int:
    """How often the masters were asked who listens."""
    total = 0
    for url in redis_urls:
        async with Redis.from_url(url) as master:
            asked = (await master.info("commandstats")).get("cmdstat_pubsub|numsub", {})
            total += int(asked.get("calls", 0))
    return total


async def subscribers(redis_urls: tuple[str, ...]) -> int:
    total = 0
    for url in redis_urls:
        async with Redis.from_url(url) as master:
            total += int((await master.pubsub_numsub(CHANNEL))[0][1])
    return total
