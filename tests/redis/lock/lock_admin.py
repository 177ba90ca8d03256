"""A lock admin on given masters, and what it sees."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from claimsvc.bootstrap import open_lock_admin
from claimsvc.config import Settings
from claimsvc.domain import HeldLock
from claimsvc.redis.lock import LockAdmin
from tests.support.databases import NOWHERE

ASKED = {"actor": "os-user:ann@here", "reason": "its instance hangs"}


@asynccontextmanager
async def lock_admin_of(redis_urls: tuple[str, ...], database_url: str = NOWHERE) -> AsyncIterator[LockAdmin]:
    settings = Settings(database_url=database_url, redis_urls=redis_urls, redis_timeout_seconds=2.0)
    async with open_lock_admin(settings) as lock_admin:
        yield lock_admin


async def only_lock(lock_admin: LockAdmin) -> HeldLock:
    [lock] = (await lock_admin.held()).locks
    return lock
