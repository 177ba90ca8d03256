"""Counts of what is left, in Redis; see `ports.Counters`."""

import zlib
from collections.abc import Sequence

from redis.asyncio import Redis
from redis.exceptions import RedisError

from claimsvc.errors import UnavailableError
from claimsvc.masters import Master
from claimsvc.scripts import Script

_take = Script("counter_take.lua")
_give_back = Script("counter_give_back.lua")
_forget = Script("counter_forget.lua")


class RedisCounters:
    """`ports.Counters`, each on the one master that its coupon's name chooses."""

    def __init__(self, masters: Sequence[Master]) -> None:
        self._masters = tuple(masters)

    async def take(self, coupon_name: str, units: int) -> int | None:
        taken = await self._run(_take, coupon_name, units)
        return None if taken < 0 else taken

    async def give_back(self, coupon_name: str, units: int) -> None:
        await self._run(_give_back, coupon_name, units)

    async def learn(self, coupon_name: str, remaining_amount: int) -> None:
        try:
            await self._master(coupon_name).set(_key(coupon_name), remaining_amount, nx=True)
        except RedisError as error:
            raise _unavailable() from error

    async def count(self, coupon_name: str) -> int | None:
        try:
            count = await self._master(coupon_name).get(_key(coupon_name))
        except RedisError as error:
            raise _unavailable() from error
        return None if count is None else int(count)

    async def forget(self, coupon_name: str, count: int) -> None:
        await self._run(_forget, coupon_name, count)

    async def _run(self, script: Script, coupon_name: str, argument: int) -> int:
        try:
            return int(await script(self._master(coupon_name), [_key(coupon_name)], argument))
        except RedisError as error:
            raise _unavailable() from error

    def _master(self, coupon_name: str) -> Redis:
        return self._masters[zlib.crc32(coupon_name.encode()) % len(self._masters)]


def _key(coupon_name: str) -> str:
    # The braces keep all keys of a coupon in one hash slot, should the server be a cluster.
    return f"claim:stock:{{{coupon_name}}}"


def _unavailable() -> UnavailableError:
    return UnavailableError("the counter's Redis does not answer", dependency="redis")
