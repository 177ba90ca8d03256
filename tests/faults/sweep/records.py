"""What PostgreSQL and the masters have on record, read directly and not through any proxy."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.types.json import Jsonb
from redis.asyncio import Redis

from tests.faults.sweep.claims import Claimant

_POLL_SECONDS = 0.02
_QUEUE = {"rate_per_second": 1000, "concurrency": 100, "max_wait_seconds": 3600, "max_length": 100, "order": "fifo"}


@dataclass(frozen=True, slots=True)
class Stock:
    """A coupon and its active claims, of one snapshot; `held` are those that are not confirmed."""

    amount: int
    remaining: int
    claims: dict[str, list[str]]
    """The claims' ids by user."""
    held: frozenset[str] = frozenset()

    @property
    def taken(self) -> int:
        return sum(map(len, self.claims.values()))


@dataclass(frozen=True, slots=True)
class TicketOnRecord:
    """A ticket; `claim` is the id of its claim, if it has one."""

    id: str
    coupon: str
    user: str
    state: str
    claim: str


class Records:
    """The coupons of one lane of the sweep, in a database of its own and on masters that lanes share."""

    def __init__(self, database: psycopg.AsyncConnection[Any], masters: Sequence[Redis]) -> None:
        self._database = database
        self._masters = masters

    async def offer(self, names: Sequence[str], units: int, strategy: str) -> None:
        for name in names:
            await self._database.execute(
                "INSERT INTO coupons (name, amount, remaining_amount, strategy) VALUES (%s, %s, %s, %s)",
                [name, units, units, strategy],
            )

    async def pause(self, names: Sequence[str]) -> None:
        """Give the coupons queues, in which nobody is started yet."""
        await self._database.execute(
            "INSERT INTO campaigns (coupon_name, queue) SELECT unnest(%s::text[]), %s", [list(names), Jsonb(_QUEUE)]
        )
        await self._database.execute(
            "INSERT INTO queues (coupon_name, paused) SELECT unnest(%s::text[]), true", [list(names)]
        )

    async def resume(self, names: Sequence[str]) -> None:
        """Let those who wait be started."""
        await self._database.execute(
            "UPDATE queues SET paused = false, due_at = clock_timestamp() WHERE coupon_name = ANY (%s) AND paused",
            [list(names)],
        )

    async def tickets(self, names: Sequence[str]) -> list[TicketOnRecord]:
        """All tickets of the coupons."""
        cursor = await self._database.execute(
            "SELECT id::text, coupon_name, user_id, state, coalesce(claim_id::text, '') FROM tickets"
            " WHERE coupon_name = ANY (%s) ORDER BY coupon_name, place",
            [list(names)],
        )
        return [TicketOnRecord(*row) for row in await cursor.fetchall()]

    async def withdraw(self, names: Sequence[str]) -> None:
        """Forget the coupons, so that the tables stay as small as they were."""
        for statement in (
            "DELETE FROM user_claims WHERE coupon_name = ANY (%s)",
            "DELETE FROM coupons WHERE name = ANY (%s)",
            "DELETE FROM tickets WHERE coupon_name = ANY (%s)",
            "DELETE FROM ticket_blocks WHERE coupon_name = ANY (%s)",
        ):
            await self._database.execute(statement, [list(names)])
        for master in self._masters:
            await master.delete(*[f"claim:stock:{{{name}}}" for name in names])

    async def take_back(self, names: Sequence[str]) -> None:
        """Make the coupons as they were when nobody had claimed."""
        await self._database.execute("DELETE FROM user_claims WHERE coupon_name = ANY (%s)", [list(names)])
        await self._database.execute(
            "UPDATE coupons SET remaining_amount = amount WHERE name = ANY (%s)", [list(names)]
        )

    async def lock(self, names: Sequence[str], seconds: float) -> None:
        """Hold the coupons' locks, as an instance would that is gone."""
        for master in self._masters:
            for name in names:
                await master.set(f"claim:coupon:{name}", "somebody else", px=int(seconds * 1000))

    async def is_locked(self, names: Sequence[str]) -> bool:
        """Whether somebody holds one of the coupons' locks."""
        return any([await master.exists(*[f"claim:coupon:{name}" for name in names]) for master in self._masters])

    @asynccontextmanager
    async def rows_locked(self, names: Sequence[str]) -> AsyncIterator[None]:
        """Hold the coupons' rows, so that whoever decides their claims waits for this to be left."""
        async with self._database.transaction():
            await self._database.execute(
                "SELECT FROM coupons WHERE name = ANY (%s) ORDER BY name FOR NO KEY UPDATE", [list(names)]
            )
            yield

    async def stocks(self, names: Sequence[str]) -> dict[str, Stock]:
        cursor = await self._database.execute(
            """
            SELECT name, amount, remaining_amount, array_remove(array_agg(user_id), NULL), array_agg(id::text),
                array_agg(id::text) FILTER (WHERE held_until IS NOT NULL)
            FROM coupons LEFT JOIN user_claims ON coupon_name = name AND state = 'active'
            WHERE name = ANY (%s) GROUP BY name
            """,
            [list(names)],
        )
        stocks: dict[str, Stock] = {}
        for name, amount, remaining, users, ids, held in await cursor.fetchall():
            claims: dict[str, list[str]] = {}
            for user, claim_id in zip(users, ids, strict=False):
                claims.setdefault(user, []).append(claim_id)
            stocks[name] = Stock(amount, remaining, claims, frozenset(held or ()))
        return stocks

    async def counters_differ(self, names: Sequence[str]) -> list[str]:
        """The coupons whose counter is not what PostgreSQL has left."""
        different: list[str] = []
        for name, stock in (await self.stocks(names)).items():
            for master in self._masters:
                count = await master.get(f"claim:stock:{{{name}}}")
                if count is not None and int(count) != stock.remaining:
                    different.append(f"the counter of {name} is {int(count)}, not {stock.remaining}")
        return different

    async def wait_until_no_lock_is_left(self, names: Sequence[str], seconds: float) -> list[str]:
        """What is wrong: keys that stay longer, or have no end of their own."""
        until = time.monotonic() + seconds
        while held := [key async for key in self._left_behind(names)]:
            endless = [key for key, left in held if left < 0]
            if endless:
                return [f"{key} has no time to live" for key in endless]
            locks = [key for key, _ in held if key.startswith("claim:coupon:")]
            if not locks:
                return []
            if time.monotonic() >= until:
                return [f"{key} is still held after {seconds:.1f} s" for key in locks]
            await asyncio.sleep(_POLL_SECONDS)
        return []

    async def _left_behind(self, names: Sequence[str]) -> AsyncIterator[tuple[str, int]]:
        for master in self._masters:
            for name in names:
                for kind in ("coupon", "turn", "waiting"):
                    left = await master.pttl(f"claim:{kind}:{name}")
                    if left != -2:
                        yield f"claim:{kind}:{name}", left

    async def open_transactions(self) -> Counter[str]:
        """The service's sessions in this database that are not idle, by their state."""
        cursor = await self._database.execute(
            "SELECT state FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name = 'claimsvc' AND state <> 'idle'"
        )
        return Counter(state for (state,) in await cursor.fetchall())


@asynccontextmanager
async def open_records(database_url: str, redis_urls: Sequence[str]) -> AsyncIterator[Records]:
    masters = [Redis.from_url(url) for url in redis_urls]
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as database:
        try:
            yield Records(database, masters)
        finally:
            for master in masters:
                await master.aclose()


def users_of(coupon_name: str, all_of_them: Sequence[Claimant]) -> set[str]:
    return {claimant.user_id for claimant in all_of_them if claimant.coupon_name == coupon_name}
