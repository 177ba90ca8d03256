"""How much memory the masters use and may use, asked of real ones."""

import asyncio
from collections.abc import Iterator

import pytest
import redis

from claimsvc.embedded import EmbeddedServices, embedded_services, temporary_state_dir
from claimsvc.redis.masters import open_masters
from tests.support.observed import Observed

_LIMIT = 64 * 2**20


@pytest.fixture
def servers() -> Iterator[EmbeddedServices]:
    """Servers that a test may pause and set up as it likes."""
    with temporary_state_dir() as state, embedded_services(state, masters=3, durable=False) as running:
        yield running


async def test_each_master_tells_what_it_uses_of_its_limit_or_of_its_machine(servers: EmbeddedServices) -> None:
    limited, unlimited, hung = servers.masters
    with redis.Redis.from_url(limited.url) as client:
        client.config_set("maxmemory", _LIMIT)
    seen = Observed()
    async with open_masters(servers.redis_urls, timeout_seconds=0.5, pool_size=4, observer=seen) as masters:
        hung.pause()
        try:
            async with asyncio.timeout(5.0):
                await masters.sample_memory()
        finally:
            hung.resume()
    by_port = {int(name.rpartition(":")[2]): memory for name, memory in seen.memory.items()}
    assert set(by_port) == {limited.port, unlimited.port}
    assert by_port[limited.port][1] == _LIMIT
    assert by_port[unlimited.port][1] > _LIMIT
    assert all(100_000 < used < limit for used, limit in by_port.values())
