"""Instances of the service without its HTTP side: one strategy with its own pool and its own clients."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import psycopg

from claimsvc.claiming.batching import BatchLimits, WaitingRoom
from claimsvc.claiming.combining import Combiner
from claimsvc.claiming.strategies import CounterStrategy, RedlockStrategy, RowLockStrategy
from claimsvc.domain import StrategyName
from claimsvc.ports import Strategy
from claimsvc.postgres import ConnectionLimits, Repositories
from claimsvc.postgres.database import Database
from claimsvc.postgres.pool import open_pool
from claimsvc.redis.counters import RedisCounters
from claimsvc.redis.lock import instance_name, open_redlocks
from claimsvc.redis.masters import open_masters
from tests.support.observed import Observed

STRATEGIES = list(StrategyName)

_WAITING_LIMIT = 300
_LIMITS = ConnectionLimits(
    pool_size=4,
    pool_timeout_seconds=2.0,
    connect_timeout_seconds=2,
    statement_timeout_seconds=3.0,
    lock_timeout_seconds=2.0,
    idle_in_transaction_timeout_seconds=3.0,
)


@dataclass(frozen=True, slots=True)
class Instance:
    strategy: Strategy
    storage: Repositories
    observed: Observed
    waiting_limit: int
    database_url: str

    async def break_database(self) -> None:
        await self._administrate("ALTER TABLE user_claims RENAME TO user_claims_away")

    async def mend_database(self) -> None:
        await self._administrate("ALTER TABLE user_claims_away RENAME TO user_claims")

    async def _administrate(self, statement: str) -> None:
        url = self.database_url.replace("+psycopg", "")
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            await connection.execute(statement)


@asynccontextmanager
async def open_instance(
    name: StrategyName, database_url: str, redis_urls: tuple[str, ...], *, combines: bool = True
) -> AsyncIterator[Instance]:
    observed = Observed()
    instance = instance_name()
    async with (
        open_pool(database_url, _LIMITS, observed) as pool,
        open_masters(redis_urls, timeout_seconds=1.0, pool_size=32, observer=observed) as masters,
        # More retries than the service's 3, so that a busy machine is not taken for a busy lock.
        open_redlocks(
            masters.all,
            ttl_seconds=20.0,
            retries=12,
            retry_wait_seconds=0.5,
            observer=observed,
            instance=instance,
            combines=combines,
        ) as lock,
    ):
        storage = Repositories.on(Database(pool, 4.0), observer=observed)
        admission = storage.admission
        limits = BatchLimits(
            batch_size=64, lock_timeout_seconds=6.0, queue_timeout_seconds=10.0, claim_timeout_seconds=20.0
        )
        room = WaitingRoom(_WAITING_LIMIT, observed)
        strategies: dict[StrategyName, Strategy] = {
            each.name: each
            for each in (
                RedlockStrategy(
                    lock,
                    admission,
                    slice_seconds=0.02,
                    limits=limits,
                    room=room,
                    observer=observed,
                    combiner=Combiner(instance, lock.post, observed) if lock.post is not None else None,
                ),
                RowLockStrategy(admission, limits=limits, room=room, observer=observed),
                CounterStrategy(
                    RedisCounters(masters.all), admission, storage.coupons, limits=limits, room=room, observer=observed
                ),
            )
        }
        strategy = strategies[name]
        yield Instance(strategy, storage, observed, _WAITING_LIMIT, database_url)
        await strategy.drain()
