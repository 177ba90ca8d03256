"""The protocol for taking locks. `pottery_lock` (one lock) and `multi_lock` (several) implement it compatibly."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from redis.exceptions import RedisError

from claimsvc.errors import UnavailableError
from claimsvc.redis.lock.wait_queue import HINT_MILLISECONDS, TURN_MILLISECONDS
from claimsvc.redis.masters import Master
from claimsvc.redis.scripts import Script


@dataclass(frozen=True, slots=True)
class ReleaseResult:
    """The result of releasing locks.

    Args:
        lost: coupon names whose locks had expired or were taken away before the release.
        woken: coupon names for whose locks a waiting instance was woken.
    """

    lost: Sequence[str]
    woken: Sequence[str]


take = Script("lock_take.lua")
_release = Script("lock_release.lua")


class Acquisition(Protocol):
    """One attempt to take locks, with its own token. It is never reused."""

    coupon_names: Sequence[str]
    successor: str
    """The instance to wake on release if none waits; empty for none."""

    async def take(self) -> Sequence[str]:
        """Try once on every master. Returns the names of the locks that were taken; no keys of the others remain.

        Raises:
            UnavailableError: a majority of the masters does not answer.
        """
        ...

    async def give_back(self, coupon_names: Sequence[str]) -> ReleaseResult:
        """Release those of these locks that this attempt still holds, and wake the instances that wait for them.

        Raises:
            UnavailableError: a majority of the masters does not answer; the locks expire by themselves.
        """
        ...


def no_majority() -> UnavailableError:
    return UnavailableError("a majority of the lock's masters does not answer", dependency="redis")


async def release(
    master: Master, keys: Sequence[str], token: str, *, taken_since: float, ttl_seconds: float, successor: str = ""
) -> list[int]:
    """Release locks on one master; see `lock_release.lua`. If that fails, it is repeated once the master answers.

    Otherwise the keys would stay until they expire, and until then that master would refuse these locks.

    Args:
        taken_since: when the first master was asked for them (monotonic seconds).
        ttl_seconds: the TTL of the keys.
        successor: the instance to wake if none waits.

    Returns:
        One result for each key; see `lock_release.lua`.

    Raises:
        RedisError: it failed for now.
    """

    async def run() -> list[int]:
        answer: list[int] = await _release(master, keys, token, TURN_MILLISECONDS, HINT_MILLISECONDS, successor)
        return answer

    try:
        return await run()
    except RedisError:
        master.undo_later(run, since=taken_since, within_seconds=ttl_seconds)
        raise
