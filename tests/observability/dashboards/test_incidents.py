"""Staged incidents, on real servers and instances: the alerts fire and the panels show it that the runbook names.

The rules are the real ones in haste: what takes an hour takes a minute (see `rules.quickened`). The instances have the
default settings.
"""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import psycopg
import pytest

from claimsvc.embedded import ValkeyServer
from tests.observability.dashboards.panels import panels, substituted
from tests.observability.dashboards.prometheus import Sample, needs_prometheus
from tests.observability.dashboards.runbook import incidents
from tests.observability.dashboards.watched_cluster import WatchedCluster, on_the_cluster
from tests.support.injectors.masters import HUNG

pytestmark = [pytest.mark.slow, needs_prometheus, *on_the_cluster(timeout_seconds=240)]

PLENTY = 10_000_000
_FIRES_SECONDS = 60.0

# What the last minutes have to do with alerts that look back for hours.
_SHORT_TERM = {
    "ClaimsvcAvailabilityBurnFast": "job:claimsvc_claims_failed:ratio_rate5m > 14.4 * (1 - 0.999)",
    "ClaimsvcLatencyBurnFast": "job:claimsvc_claims_slow:ratio_rate5m > 14.4 * (1 - 0.99)",
}


async def firing(watched: WatchedCluster) -> set[str]:
    """The alerts that fire now."""
    return {each.labels["alertname"] for each in await watched.query('ALERTS{alertstate="firing"}')}


async def healthy(watched: WatchedCluster, incident: str, coupons: Sequence[str]) -> None:
    """Wait until the rules see claims of these coupons, and nothing fires that the incident is to be known by.

    Nor a master that is down. A busy machine may cause other alerts, and they prove nothing here. Those that tell how
    users have fared look back for hours, so of them it is asked that the last minutes were good.
    """
    for coupon in coupons:
        await watched.prometheus.until(f'job_coupon:claimsvc_coupon_claimed:rate5m{{coupon="{coupon}"}} > 0')
    named = incidents()[incident].alerts
    for alert, bad in _SHORT_TERM.items():
        if alert in named:
            await watched.prometheus.until(f"absent({bad})", _FIRES_SECONDS)
    names = "|".join({*named, "ClaimsvcMasterDown"} - set(_SHORT_TERM))
    ours = f'ALERTS{{alertstate="firing", alertname=~"{names}", coupon=~"|{"|".join(coupons)}"}}'
    try:
        await watched.prometheus.until(f"absent({ours})", _FIRES_SECONDS)
    except TimeoutError:
        pytest.fail(f"nothing was done to it, and there fire {await watched.query(ours)}")


async def fires(watched: WatchedCluster, alert: str, of: str = "") -> list[Sample]:
    firing = f'ALERTS{{alertname="{alert}", alertstate="firing", {of}}}'
    return await watched.prometheus.until(firing, _FIRES_SECONDS)


async def falls_silent(watched: WatchedCluster, alert: str, of: str = "") -> None:
    firing = f'ALERTS{{alertname="{alert}", alertstate="firing", {of}}}'
    await watched.prometheus.until(f"absent({firing})", _FIRES_SECONDS)


async def shows(watched: WatchedCluster, name: str, what: Callable[[list[Sample]], bool]) -> None:
    """Wait until a panel of the dashboards shows it."""
    [panel] = [each for each in panels() if str(each) == name]
    seen: list[Sample] = []
    for _ in range(200):
        seen = []
        for target in panel.targets:
            expression = substituted(target["expr"], rate_interval="5s", time_range="1m")
            seen += await watched.query(expression)
        if what(seen):
            return
        await asyncio.sleep(0.2)
    pytest.fail(f"{name} shows {seen}")


def above(value: float, **labels: str) -> Callable[[list[Sample]], bool]:
    """That a series with these labels exceeds a value."""
    return lambda seen: any(labels.items() <= each.labels.items() and each.value > value for each in seen)


async def expect(watched: WatchedCluster, incident: str, shown: Mapping[str, Callable[[list[Sample]], bool]]) -> None:
    """Every alert of a row of the runbook fires, and every panel of it shows what it should."""
    named = incidents()[incident]
    assert sorted(named.panels) == sorted(shown)
    for name, what in shown.items():
        await shows(watched, name, what)
    for alert in named.alerts:
        if alert in _SHORT_TERM:
            await watched.prometheus.until(_SHORT_TERM[alert], _FIRES_SECONDS)
        await fires(watched, alert)


async def test_one_of_three_masters_hangs_and_then_another(watched: WatchedCluster) -> None:
    coupons = [await watched.cluster.create_coupon(PLENTY) for _ in range(3)]
    first, second, _ = watched.cluster.masters
    async with watched.load(coupons, clients=12, per_second=60):
        await healthy(watched, "Two of three masters hang", coupons)
        async with hanging(first):
            await expect(watched, "One of three masters hangs", {f"dependencies / {MASTERS_UP}": down(first)})
            assert [each.labels["master"] for each in await fires(watched, "ClaimsvcMasterDown")] == [name_of(first)]
            assert "ClaimsvcQuorumLost" not in await firing(watched)
            assert not await watched.query("job:claimsvc_claims_failed:ratio_rate5m > 0.05"), "users notice"
            async with hanging(second):
                await expect(
                    watched,
                    "Two of three masters hang",
                    {
                        f"dependencies / {MASTERS_UP}": down(first, second),
                        "claims / Claims by outcome": above(0, outcome="unavailable"),
                    },
                )
        await falls_silent(watched, "ClaimsvcQuorumLost")
        await falls_silent(watched, "ClaimsvcMasterDown")


async def test_a_slow_database(watched: WatchedCluster) -> None:
    coupons = [await watched.cluster.create_coupon(PLENTY) for _ in range(3)]
    async with watched.load(coupons, per_second=60):
        await healthy(watched, "A slow database", coupons)
        delayed = watched.database.delayed
        watched.database.delay_seconds = 0.3
        try:
            await expect(
                watched,
                "A slow database",
                {
                    "dependencies / Transactions: quantiles": above(0.1),
                    "lock-contention / Hold: quantiles": above(0.1),
                },
            )
            assert not {"ClaimsvcQuorumLost", "ClaimsvcLockHeldByStranger"} & await firing(watched)
            assert watched.database.delayed > delayed
        finally:
            watched.database.delay_seconds = 0.0
        await falls_silent(watched, "ClaimsvcDatabaseSlow")


async def test_one_hot_coupon_and_three_instances(watched: WatchedCluster) -> None:
    """Somebody else's transactions hold its row, each for so long that three instances cannot all have their turn in
    time. With default settings claims alone do not contend: they are batched, and turns are short.
    """
    hot, cool = [await watched.cluster.create_coupon(PLENTY) for _ in range(2)]
    async with watched.load([cool], clients=2, per_second=20), watched.load([hot], clients=120, per_second=400):
        await healthy(watched, "One hot coupon, several instances", [hot, cool])
        async with row_held_again_and_again(watched.cluster.database_url, hot, seconds=0.9):
            await expect(
                watched,
                "One hot coupon, several instances",
                {
                    "lock-contention / Wait: p99 by coupon": above(0.5, coupon=hot),
                    "lock-contention / Hold: p99 by coupon": above(0.5, coupon=hot),
                    "lock-contention / Gave up, by coupon": above(0, coupon=hot),
                },
            )
            for alert in ("ClaimsvcLockContended", "ClaimsvcLockGiveUps"):
                await fires(watched, alert, f'coupon="{hot}"')
            assert not await watched.query(f'ALERTS{{alertname=~"ClaimsvcLock.+", coupon="{cool}"}}')
            assert not {"ClaimsvcMasterDown", "ClaimsvcLockHeldByStranger"} & await firing(watched)
        await falls_silent(watched, "ClaimsvcLockGiveUps", f'coupon="{hot}"')


async def test_a_lock_that_nobody_of_ours_holds_until_it_is_released_as_the_runbook_says(
    watched: WatchedCluster,
) -> None:
    held, other = [await watched.cluster.create_coupon(PLENTY) for _ in range(2)]
    async with watched.load([held, other], per_second=60):
        await healthy(watched, "A lock held by no known instance", [held, other])
        with watched.held_by_a_stranger(held):
            await expect(
                watched,
                "A lock held by no known instance",
                {
                    "lock-contention / Refused, though no known instance holds it": only(coupon=held),
                    "lock-contention / Gave up, by coupon": above(0, coupon=held),
                },
            )
            assert {each.labels["coupon"] for each in await fires(watched, "ClaimsvcLockHeldByStranger")} == {held}
            await claimsvc(watched, "locks", "release", held, "--reason", "a stranger left it", "--yes")
            await falls_silent(watched, "ClaimsvcLockHeldByStranger")


MASTERS_UP = "Masters up, as each instance sees them"


def name_of(master: ValkeyServer) -> str:
    return f"127.0.0.1:{master.port}"


def down(*masters: ValkeyServer) -> Callable[[list[Sample]], bool]:
    """That these masters are shown to be down by every instance, and no others by any."""
    expected = {name_of(each): 3 for each in masters}

    def are_down(seen: list[Sample]) -> bool:
        found = Counter(each.labels["master"] for each in seen if not each.value)
        return found == expected and len(seen) == 9

    return are_down


def only(**labels: str) -> Callable[[list[Sample]], bool]:
    """That there are series, and all have these labels."""
    return lambda seen: bool(seen) and all(labels.items() <= each.labels.items() for each in seen)


@asynccontextmanager
async def hanging(master: ValkeyServer) -> AsyncIterator[None]:
    await asyncio.to_thread(HUNG.inflict, master)
    try:
        yield
    finally:
        await asyncio.to_thread(HUNG.heal, master)


@asynccontextmanager
async def row_held_again_and_again(database_url: str, coupon: str, *, seconds: float) -> AsyncIterator[None]:
    """Transactions of somebody else's hold the coupon's row, one after the other, each for so long."""

    async def hold() -> None:
        async with await psycopg.AsyncConnection.connect(database_url) as connection:
            while True:
                async with connection.transaction():
                    await connection.execute("SELECT FROM coupons WHERE name = %s FOR UPDATE", [coupon])
                    await asyncio.sleep(seconds)

    holding = asyncio.create_task(hold())
    try:
        yield
        assert not holding.done(), "it has failed"
    finally:
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)


async def claimsvc(watched: WatchedCluster, *arguments: str) -> None:
    """Run a command of the service's, with the settings of the instances; it has to succeed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "claimsvc", *arguments),
        env={**os.environ, **watched.instances[0].settings},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told, _ = await process.communicate()
    assert process.returncode == 0, told.decode()
