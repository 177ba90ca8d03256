"""One cluster for all tests that need one: it takes longer to build than most of them take to run.

They belong to one xdist group, so one worker builds it once. Each test makes coupons of its own, and leaves no fault
behind; what alerts and rates still say of the test before, it waits out.
"""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.observability.dashboards.contention import Seen, contended
from tests.observability.dashboards.watched_cluster import WatchedCluster, watched_cluster
from tests.support.alert_rules import quickened

# What finds drifts often enough for a test: by two looks, the second when a claim's patience is over.
_RECONCILES_OFTEN = {"CLAIMSVC_RECONCILE_SECONDS": "1", "CLAIMSVC_CLAIM_QUEUE_TIMEOUT_SECONDS": "2"}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def watched(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WatchedCluster]:
    """Three instances with default settings, the second with two workers, under our rules in haste.

    The third looks for drifts more often than it would.
    """
    rules = quickened(tmp_path_factory.mktemp("rules"))
    async with watched_cluster(({}, {"CLAIMSVC_WORKERS": "2"}, _RECONCILES_OFTEN), rule_files=rules) as opened:
        yield opened


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def seen(watched: WatchedCluster) -> Seen:
    """What panels, marks and rules say while everything happens that the metrics tell of."""
    return await contended(watched)
