"""Counters in Redis for stock and for codes; see `ports.Counters` and `ports.CodeCounters`."""

from collections.abc import Sequence

from redis.asyncio import Redis
from redis.exceptions import RedisError

from claimsvc.domain import CodeCounts
from claimsvc.errors import UnavailableError
from claimsvc.redis.masters import Master, place_of
from claimsvc.redis.scripts import Script

_take = Script("counter_take.lua")
_give_back = Script("counter_give_back.lua")
_forget = Script("counter_forget.lua")
_put_codes = Script("codes_put.lua")

# Counts of removed types expire after this. Counts of existing types are refreshed much earlier.
_CODES_KEPT_SECONDS = 3600


class RedisCounters:
    """`ports.Counters`. A hash of the coupon's name selects the master of its counter."""

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
        return _chosen(self._masters, coupon_name)


class RedisCodeCounters:
    """`ports.CodeCounters`. A hash of the type selects the master of its counts."""

    def __init__(self, masters: Sequence[Master]) -> None:
        self._masters = tuple(masters)

    async def begin(self, coupon_type: str | None) -> int:
        try:
            return int(await self._master(coupon_type).hincrby(_codes_key(coupon_type), "begun", 1))
        except RedisError as error:
            raise _unavailable() from error

    async def put(self, coupon_type: str | None, number: int, counts: CodeCounts) -> bool:
        figures = (counts.uploaded, counts.claimed, counts.redeemed, counts.voided)
        try:
            return bool(
                await _put_codes(
                    self._master(coupon_type), [_codes_key(coupon_type)], number, _CODES_KEPT_SECONDS, *figures
                )
            )
        except RedisError as error:
            raise _unavailable() from error

    async def read(self, coupon_type: str | None) -> CodeCounts | None:
        fields = ["uploaded", "claimed", "redeemed", "voided"]
        try:
            figures = await self._master(coupon_type).hmget(_codes_key(coupon_type), fields)
        except RedisError as error:
            raise _unavailable() from error
        known = [int(figure) for figure in figures if figure is not None]
        return CodeCounts(*known) if len(known) == len(fields) else None

    def _master(self, coupon_type: str | None) -> Redis:
        return _chosen(self._masters, coupon_type or "")


def _chosen(masters: Sequence[Master], name: str) -> Redis:
    return masters[place_of(name, len(masters))]


def _codes_key(coupon_type: str | None) -> str:
    return f"claim:codes:{{{coupon_type or ''}}}"


def _key(coupon_name: str) -> str:
    # The braces keep all keys of a coupon in one hash slot if the server is a cluster.
    return f"claim:stock:{{{coupon_name}}}"


def _unavailable() -> UnavailableError:
    return UnavailableError("the counter's Redis master does not answer", dependency="redis")
