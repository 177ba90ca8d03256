"""What taking locks comes to, one or several: the protocol of `single` and `group`, which exclude each other."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from redis.exceptions import RedisError

from claimsvc.errors import UnavailableError
from claimsvc.redis.lock.wait_queue import HINT_MILLISECONDS, TURN_MILLISECONDS
from claimsvc.redis.masters import Master
from claimsvc.redis.scripts import Script


@dataclass(frozen=True, slots=True)
class GivenBack:
    """Which locks were not ours any more when they were given back, and for which another instance was woken."""

    lost: Sequence[str]
    woken: Sequence[str]


take = Script("lock_take.lua")
_release = Script("lock_release.lua")


class Acquisition(Protocol):
    """One try to take locks, under a token of its own: it is never tried twice."""

    coupon_names: Sequence[str]

    async def take(self) -> Sequence[str]:
        """Ask every master once. Returns the names whose locks are ours now; nothing is left behind of the others.

        Raises:
            UnavailableError: a majority of the masters does not answer.
        """
        ...

    async def give_back(self, coupon_names: Sequence[str]) -> GivenBack:
        """Give these locks back, as far as they are ours, and wake who waits for them.

        Raises:
            UnavailableError: a majority of the masters does not answer; the locks expire by themselves.
        """
        ...


def masters_are_gone() -> UnavailableError:
    return UnavailableError("a majority of the lock's masters does not answer", dependency="redis")


async def release(
    master: Master, keys: Sequence[str], token: str, *, taken_since: float, ttl_seconds: float
) -> list[int]:
    """Give locks back to one master; see `lock_release.lua`. What fails is done once the master can be asked again.

    Otherwise a key would stay there for its whole life, and for so long the others had to agree without that master.

    Args:
        taken_since: when the first master was asked for them (monotonic seconds).
        ttl_seconds: the life of the keys.

    Raises:
        RedisError: it failed for now.
    """

    async def ask() -> list[int]:
        answer: list[int] = await _release(master, keys, token, TURN_MILLISECONDS, HINT_MILLISECONDS)
        return answer

    try:
        return await ask()
    except RedisError:
        master.owe(ask, since=taken_since, within_seconds=ttl_seconds)
        raise
