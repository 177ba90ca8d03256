"""Staged incidents, on real servers and instances: the alerts fire and the panels show it that the runbook names.

The rules are the real ones in haste: what takes an hour takes a minute (see `rules.quickened`).
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from claimsvc.embedded import ValkeyServer
from tests.faults.injectors.masters import HUNG
from tests.observability.panels import panels, substituted
from tests.observability.prometheus import Sample, needs_prometheus
from tests.observability.rules import alerts, quickened
from tests.observability.runbook import incidents
from tests.observability.stage import WatchedStage, watched_stage
from tests.proxy import proxy_to

pytestmark = [needs_prometheus, pytest.mark.timeout(240)]

PLENTY = 10_000_000
_FIRES_SECONDS = 60.0


@asynccontextmanager
async def alarmed(folder: Path) -> AsyncIterator[WatchedStage]:
    """A stage without instances, whose Prometheus has our rules."""
    async with watched_stage(workers=(), rule_files=quickened(folder)) as watched:
        yield watched


async def firing(watched: WatchedStage) -> set[str]:
    """The alerts that fire now."""
    return {each.labels["alertname"] for each in await watched.query('ALERTS{alertstate="firing"}')}


async def healthy(watched: WatchedStage, *may_fire: str) -> None:
    """Wait until the rules have seen some minutes (seconds, to them) of claims, and find nothing wrong.

    Args:
        may_fire: what the load itself causes.
    """
    await watched.prometheus.until("count_over_time((job:claimsvc_claims:rate5m > 0)[10s:1s]) >= 8")
    silent = set(alerts()) - set(may_fire)
    for _ in range(30):  # a machine that was busy starting it all may have been late with the first claims
        if not silent & await firing(watched):
            return
        await asyncio.sleep(1)
    pytest.fail(f"nothing was done to it, and there fire {await firing(watched)}")


async def fires(watched: WatchedStage, alert: str, of: str = "") -> list[Sample]:
    firing = f'ALERTS{{alertname="{alert}", alertstate="firing", {of}}}'
    return await watched.prometheus.until(firing, _FIRES_SECONDS)


async def falls_silent(watched: WatchedStage, alert: str) -> None:
    await watched.prometheus.until(f'absent(ALERTS{{alertname="{alert}", alertstate="firing"}})', _FIRES_SECONDS)


async def shows(watched: WatchedStage, name: str, what: Callable[[list[Sample]], bool]) -> None:
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


async def expect(watched: WatchedStage, incident: str, shown: Mapping[str, Callable[[list[Sample]], bool]]) -> None:
    """Every alert of a row of the runbook fires, and every panel of it shows what it should."""
    named = incidents()[incident]
    assert sorted(named.panels) == sorted(shown)
    for name, what in shown.items():
        await shows(watched, name, what)
    for alert in named.alerts:
        await fires(watched, alert)


async def test_a_slow_database(tmp_path: Path) -> None:
    async with alarmed(tmp_path) as watched, contextlib.AsyncExitStack() as stack:
        database = await stack.enter_async_context(proxy_to("127.0.0.1", watched.stage.postgres.port))
        url = watched.stage.database_url.replace(f":{watched.stage.postgres.port}", f":{database.port}")
        assert urlsplit(url).port == database.port
        for _ in range(2):
            await watched.start(settings={"CLAIMSVC_DATABASE_URL": url})
        coupons = [await watched.stage.create_coupon(PLENTY) for _ in range(3)]
        async with watched.load(coupons, per_second=60):
            await healthy(watched)
            database.delay_seconds = 0.3
            await expect(
                watched,
                "A slow database",
                {
                    "dependencies / Transactions: quantiles": above(0.1),
                    "lock-contention / Hold: quantiles": above(0.1),
                },
            )
            assert "ClaimsvcQuorumLost" not in await firing(watched)
            assert database.delayed
            database.delay_seconds = 0.0
            await falls_silent(watched, "ClaimsvcDatabaseSlow")


async def test_one_hot_coupon_and_three_instances(tmp_path: Path) -> None:
    """Their slices are far too long and their batches far too small: each keeps the lock for longer than the others can
    wait, because claims are there all the while.
    """
    settings = {"CLAIMSVC_LOCK_SLICE_SECONDS": "3.0", "CLAIMSVC_BATCH_SIZE": "1"}
    async with alarmed(tmp_path) as watched:
        for _ in range(3):
            await watched.start(settings=settings)
        hot, cool = [await watched.stage.create_coupon(PLENTY) for _ in range(2)]
        async with watched.load([cool], clients=2, per_second=20):
            await healthy(watched)
            async with watched.load([hot], clients=120):
                await expect(
                    watched,
                    "One hot coupon, several instances",
                    {
                        "lock-contention / Wait: p99 by coupon": above(0.5, coupon=hot),
                        "lock-contention / Gave up, by coupon": above(0, coupon=hot),
                    },
                )
                for alert in ("ClaimsvcLockContended", "ClaimsvcLockGiveUps"):
                    await fires(watched, alert, f'coupon="{hot}"')
                assert not await watched.query(f'ALERTS{{alertname=~"ClaimsvcLock.+", coupon="{cool}"}}')
                assert "ClaimsvcMasterDown" not in await firing(watched)


async def test_one_of_three_masters_hangs_and_then_another(tmp_path: Path) -> None:
    async with alarmed(tmp_path) as watched, contextlib.AsyncExitStack() as stack:
        for _ in range(2):
            await watched.start()
        coupons = [await watched.stage.create_coupon(PLENTY) for _ in range(3)]
        first, second, _ = watched.stage.masters

        async def hang(master: ValkeyServer) -> None:
            await asyncio.to_thread(HUNG.inflict, master)
            stack.callback(HUNG.heal, master)

        async with watched.load(coupons, clients=12, per_second=60):
            await healthy(watched)
            await hang(first)
            await expect(watched, "One of three masters hangs", {"dependencies / Masters up": _down(first)})
            assert [each.labels["master"] for each in await fires(watched, "ClaimsvcMasterDown")] == [_name(first)]
            assert not {"ClaimsvcQuorumLost", "ClaimsvcAvailabilityBurnFast"} & await firing(watched)

            await hang(second)
            await expect(
                watched,
                "Two of three masters hang",
                {
                    "dependencies / Masters up": _down(first, second),
                    "claims / Claims by outcome": above(0, outcome="unavailable"),
                },
            )
            await stack.aclose()
            await falls_silent(watched, "ClaimsvcQuorumLost")
            await falls_silent(watched, "ClaimsvcMasterDown")


def _name(master: ValkeyServer) -> str:
    return f"127.0.0.1:{master.port}"


def _down(*masters: ValkeyServer) -> Callable[[list[Sample]], bool]:
    """That these masters are shown to be down, and no others."""
    return lambda seen: {each.labels["master"] for each in seen if not each.value} == {_name(each) for each in masters}
