"""A locksmith, and what it has left behind."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from claimsvc.bootstrap import open_lock_admin
from claimsvc.config import Settings
from claimsvc.connect import open_storage
from claimsvc.domain import (
    AuditEntry,
    HeldLock,
)
from claimsvc.redis.lock import LockAdmin

NOWHERE = "postgresql://nobody:nothing@127.0.0.1:1/none"
ASKED = {"actor": "os-user:ann@here", "reason": "its instance hangs"}


@asynccontextmanager
async def locksmith_of(redis_urls: tuple[str, ...], database_url: str = NOWHERE) -> AsyncIterator[LockAdmin]:
    settings = Settings(database_url=database_url, redis_urls=redis_urls, redis_timeout_seconds=2.0)
    async with open_lock_admin(settings) as locksmith:
        yield locksmith


async def trail(database_url: str, coupon_name: str = "spring") -> list[AuditEntry]:
    async with open_storage(Settings(database_url=database_url, redis_urls=("redis://unused",))) as storage:
        found: list[AuditEntry] = await storage.trail("coupon", coupon_name, limit=10)
        return found


async def only_lock(locksmith: LockAdmin) -> HeldLock:
    [lock] = (await locksmith.held()).locks
    return lock
