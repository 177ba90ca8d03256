"""What quotas count, on real masters."""

import asyncio
import random
import time

from redis import Redis

from claimsvc.domain import Quota
from claimsvc.redis.rate_limiter import RedisQuotas
from tests.redis.rate_limiter.quota_service import FIVE_AN_HOUR, quotas_on
from tests.support.waiting import until

_PER_ADDRESS = Quota("address", 2, 3600)


async def allowed(quotas: RedisQuotas, **subjects: str) -> bool:
    standings = await quotas.take(subjects)
    assert standings, "the masters are well, so it is known"
    return not any(each.is_exceeded for each in standings)


def keys(urls: tuple[str, ...]) -> dict[str, int]:
    """Every key of every master, and the milliseconds that are left of it."""
    found: dict[str, int] = {}
    for url in urls:
        with Redis.from_url(url, decode_responses=True) as master:
            found |= {str(key): int(str(master.pttl(key))) for key in master.keys("*")}
    return found


async def test_so_many_are_let_through_by_all_instances_together(redis_urls: tuple[str, ...]) -> None:
    async with quotas_on(redis_urls) as (here, _), quotas_on(redis_urls) as (there, _):
        for remaining in (4, 3, 2, 1, 0):
            [standing] = await (here if remaining % 2 else there).take({"user": "ada"})
            assert (standing.is_exceeded, standing.remaining) == (False, remaining)
            assert 700 < standing.seconds <= 720
        for instance in (here, there):
            [standing] = await instance.take({"user": "ada"})
            assert (standing.is_exceeded, standing.remaining) == (True, 0)
            assert 700 < standing.seconds <= 720


async def test_one_subject_is_nothing_to_another_and_a_quota_that_is_changed_begins_anew(
    redis_urls: tuple[str, ...],
) -> None:
    one = Quota("user", 1, 3600)
    async with quotas_on(redis_urls, one) as (quotas, _):
        assert await allowed(quotas, user="ada")
        assert await allowed(quotas, user="ben")
        assert not await allowed(quotas, user="ada")
        assert await quotas.take({"address": "10.0.0.1"}) == []
    async with quotas_on(redis_urls, Quota("user", 1, 1800)) as (quotas, _):
        assert await allowed(quotas, user="ada")


async def test_whoever_waits_as_long_as_they_were_told_may_ask_again(redis_urls: tuple[str, ...]) -> None:
    """Refused requests are not counted, so asking all the while makes nobody wait longer."""
    async with quotas_on(redis_urls, Quota("user", 2, 1)) as (quotas, decided):
        begun = time.monotonic()
        for _ in range(3):
            await until(lambda: allowed(quotas, user="ada"), "one more is allowed")
        # Two at once, and one more half a second later.
        assert time.monotonic() - begun >= 0.5
        assert decided.results["user", "refused"] > 1


async def test_of_an_address_that_asks_too_often_the_users_are_not_counted(redis_urls: tuple[str, ...]) -> None:
    async with quotas_on(redis_urls, _PER_ADDRESS, FIVE_AN_HOUR) as (quotas, decided):
        for _ in range(6):
            await quotas.take({"address": "10.0.0.1", "user": "ada"})
        assert decided.results == {("address", "allowed"): 2, ("address", "refused"): 4, ("user", "allowed"): 2}
        assert [each.remaining for each in await quotas.take({"address": "10.0.0.2", "user": "ada"})] == [1, 2]


async def test_masters_are_told_no_name_and_forget_what_is_over(redis_urls: tuple[str, ...]) -> None:
    async with quotas_on(redis_urls, _PER_ADDRESS, FIVE_AN_HOUR) as (quotas, _):
        await quotas.take({"address": "10.0.0.1", "user": "ada"})
    found = keys(redis_urls)
    assert len(found) == 2
    assert all(key.startswith("claim:quota:") and len(key) == len("claim:quota:") + 32 for key in found)
    assert not [key for key in found if "ada" in key or "10.0" in key]
    # Each is kept until its quota is whole again: a fifth of the hour, and half of it.
    assert [round(left / 60_000) for left in sorted(found.values())] == [12, 30]


async def test_a_thousand_at_once_are_counted_one_by_one_though_the_process_is_late(
    redis_urls: tuple[str, ...],
) -> None:
    """A flood that keeps the process busy is what a quota is for: that must not look like a master that is slow."""
    async with quotas_on(redis_urls) as (quotas, decided):
        asking = [asyncio.create_task(quotas.take({"user": "ada"})) for _ in range(1000)]
        while not all(task.done() for task in asking):
            await asyncio.sleep(0)
            time.sleep(0.02)  # noqa: ASYNC251 - the event loop is kept busy
    assert decided.results == {("user", "allowed"): 5, ("user", "refused"): 995}


def _calls(urls: tuple[str, ...]) -> int:
    """How many scripts the masters were told to run."""
    calls = 0
    for url in urls:
        with Redis.from_url(url) as master:
            stats = master.info("commandstats")
            calls += sum(int(stats[name]["calls"]) for name in ("cmdstat_evalsha", "cmdstat_eval") if name in stats)
    return calls


async def test_requests_that_come_together_cost_one_call_and_are_told_apart(redis_urls: tuple[str, ...]) -> None:
    async with quotas_on(redis_urls) as (quotas, decided):
        before = _calls(redis_urls)
        users = ["ada", "ben", "ada", "cleo", "ada", "ada", "ben", "ada", "ada", "ada"]
        standings = await asyncio.gather(*(quotas.take({"user": user}) for user in users))
        told: dict[str, list[tuple[bool, int]]] = {user: [] for user in users}
        for user, [standing] in zip(users, standings, strict=True):
            told[user].append((standing.is_exceeded, standing.remaining))
        counted = [(False, 4), (False, 3), (False, 2), (False, 1), (False, 0)]
        assert told == {"ada": [*counted, (True, 0), (True, 0)], "ben": counted[:2], "cleo": counted[:1]}
        assert {round(standing.seconds) for [standing] in standings} == {720}
        assert decided.results == {("user", "allowed"): 8, ("user", "refused"): 2}
        assert _calls(redis_urls) - before <= len(redis_urls)


async def test_under_load_requests_that_come_one_by_one_share_calls(redis_urls: tuple[str, ...]) -> None:
    async with quotas_on(redis_urls, Quota("user", 10_000, 3600)) as (quotas, _):
        before = _calls(redis_urls)

        async def asking() -> None:
            for _ in range(30):
                [standing] = await quotas.take({"user": "ada"})
                assert not standing.is_exceeded
                await asyncio.sleep(0.002 * random.random())

        await asyncio.gather(*(asking() for _ in range(32)))
        [standing] = await quotas.take({"user": "ada"})
        assert standing.remaining == 10_000 - 32 * 30 - 1
        assert _calls(redis_urls) - before < 32 * 30 / 4


async def test_a_clock_that_is_set_back_makes_nobody_wait_for_it(redis_urls: tuple[str, ...]) -> None:
    async with quotas_on(redis_urls) as (quotas, _):
        assert await allowed(quotas, user="ada")
        [key] = keys(redis_urls)
        for url in redis_urls:
            with Redis.from_url(url) as master:
                master.set(key, int((time.time() + 36_000) * 1_000_000), xx=True)
        assert [each.remaining for each in await quotas.take({"user": "ada"})] == [4]


async def test_odd_quotas_are_exact(redis_urls: tuple[str, ...]) -> None:
    """Seven do not divide an hour, and a hundred thousand a day are less than a second apart."""
    for quota in (Quota("user", 7, 3600), Quota("user", 100_000, 86_400), Quota("user", 1, 86_400)):
        async with quotas_on(redis_urls, quota) as (quotas, _):
            [standing] = await quotas.take({"user": "ada"})
            assert standing.remaining == quota.requests - 1
            assert 0 < standing.seconds <= quota.seconds / quota.requests
