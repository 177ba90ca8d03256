"""Forgetting users over HTTP: exactly the one that is named, however its id looks in a path."""

from urllib.parse import quote

import aiohttp
import pytest
from yarl import URL

from claimsvc.http.app import create_app
from tests.http.memory_services import MemoryErasure, Observations, memory_services
from tests.support.admin import ADMIN, ADMIN_DIGEST
from tests.support.memory_store import MemoryStore
from tests.support.serving import served


@pytest.mark.parametrize(
    "user_id", ["ada", "a/b", "100%", "a%41", "%2F", "%252F", "a?b#c", "a+b", "'\"\\", "...", ".a"]
)
async def test_whoever_is_named_is_forgotten_and_nobody_else(user_id: str) -> None:
    erasure = MemoryErasure()
    app = create_app(memory_services(MemoryStore(), Observations(), erasure=erasure))
    async with served(app) as port, aiohttp.ClientSession() as client:
        url = URL(f"http://127.0.0.1:{port}/api/users/{quote(user_id, safe='')}", encoded=True)
        async with client.delete(url, headers=ADMIN) as response:
            assert (response.status, (await response.json())["erased_as"]) == (200, "erased-nobody")
    assert erasure.asked == [(user_id, f"admin-key:{ADMIN_DIGEST[:12]}")]
