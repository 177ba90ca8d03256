"""What a real Prometheus gets of real instances, one of which has two workers behind its port."""

import asyncio
import subprocess

import pytest

from tests.observability.dashboards.prometheus import needs_prometheus
from tests.observability.dashboards.watched_cluster import WatchedCluster, on_the_cluster

pytestmark = [pytest.mark.slow, needs_prometheus, *on_the_cluster(timeout_seconds=120)]


async def test_workers_behind_one_port_report_together_counters_gauges_and_the_process(watched: WatchedCluster) -> None:
    _, two_workers, _ = watched.instances
    there = f'instance="127.0.0.1:{two_workers.port}"'
    coupon = await watched.cluster.create_coupon(1_000_000)
    async with watched.load([coupon], clients=48, per_second=200) as load:
        await watched.prometheus.until(f'claimsvc_lock_held{{coupon="{coupon}", {there}}} == 1')
        with watched.held_by_a_stranger(coupon):
            # One leader waits in each worker, for all the claims that have come to it.
            await watched.prometheus.until(f"claimsvc_lock_waiters{{{there}}} == 2")
            await watched.prometheus.until(f"claimsvc_claims_waiting{{{there}}} >= 2")
    acknowledged = load.history.acknowledged
    await watched.prometheus.until(
        f'sum(claimsvc_claims_total{{coupon="{coupon}", outcome="claimed"}}) == {acknowledged}'
    )
    await watched.prometheus.until(f'claimsvc_lock_held{{coupon="{coupon}", {there}}} == 0')
    await watched.prometheus.until(f'sum(claimsvc_db_pool_connections{{{there}, state="in_use"}}) == 0')
    # Two workers and their supervisor, of which each has some tens of MB.
    await watched.prometheus.until(f"process_resident_memory_bytes{{{there}}} > 100e6")
    await watched.prometheus.until(f"process_cpu_seconds_total{{{there}}} > 1")

    for instance in watched.instances:
        exposition = (await instance.metrics()).encode()
        checked = await asyncio.to_thread(
            subprocess.run, ["promtool", "check", "metrics"], input=exposition, capture_output=True, check=False
        )
        assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")
