"""Takes several locks on all masters with one round trip to each.

pottery takes one lock at a time. This uses the same keys, values and release rules, so that the two exclude each
other. https://redis.io/docs/latest/develop/clients/patterns/distributed-locks/ describes the algorithm.
"""

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Sequence

from redis.exceptions import RedisError

from claimsvc.redis.lock.acquisition import ReleaseResult, no_majority, release, take
from claimsvc.redis.lock.identity import key_of, token_of
from claimsvc.redis.masters import Master


class MultiLockAcquisition:
    """`Acquisition` of several locks `claim:coupon:<name>`. Each is taken independently of the others.

    Args:
        coupon_names: names of the locks.
        masters: all masters of the lock.
        instance: name of this instance, the beginning of the token.
        ttl_seconds: the TTL of the keys.
        validity_seconds: the TTL less the allowance for clock drift; an attempt that takes longer fails.
        combines: see `token_of`.
    """

    def __init__(
        self,
        coupon_names: Sequence[str],
        masters: Sequence[Master],
        *,
        instance: str,
        ttl_seconds: float,
        validity_seconds: float,
        combines: bool,
    ) -> None:
        self.coupon_names = coupon_names
        self._masters = masters
        self._majority = len(masters) // 2 + 1
        self._ttl_seconds = ttl_seconds
        self._validity_seconds = validity_seconds
        self._token = token_of(instance, str(uuid.uuid4()), combines=combines)
        self.successor = ""
        self._taken_since = time.monotonic()

    async def take(self) -> Sequence[str]:
        keys = [key_of(name) for name in self.coupon_names]
        ttl_milliseconds = int(self._ttl_seconds * 1000)
        votes = await self._ask([take(master, keys, self._token, ttl_milliseconds) for master in self._masters])
        if len(votes) < self._majority:
            await self._release(self.coupon_names)
            raise no_majority()
        count = Counter(name for vote in votes for name, taken in zip(self.coupon_names, vote, strict=True) if taken)
        in_time = time.monotonic() - self._taken_since < self._validity_seconds
        taken = [name for name, masters in count.items() if masters >= self._majority and in_time]
        if missed := [name for name in count if name not in taken]:
            await self._release(missed)
        return taken

    async def give_back(self, coupon_names: Sequence[str]) -> ReleaseResult:
        votes = await self._release(coupon_names)
        if len(votes) < self._majority:
            raise no_majority()
        held: Counter[str] = Counter()
        woken: set[str] = set()
        for vote in votes:
            for name, given_back in zip(coupon_names, vote, strict=True):
                held[name] += given_back > 0
                if given_back == 2:
                    woken.add(name)
        return ReleaseResult(lost=[name for name in coupon_names if held[name] < self._majority], woken=tuple(woken))

    async def _release(self, coupon_names: Sequence[str]) -> list[list[int]]:
        keys = [key_of(name) for name in coupon_names]
        return await self._ask(
            [
                release(master, keys, self._token, taken_since=self._taken_since, ttl_seconds=self._ttl_seconds)
                for master in self._masters
            ]
        )

    async def _ask(self, questions: Sequence[Awaitable[list[int]]]) -> list[list[int]]:
        """Return the answers of the masters that answered."""
        answers: list[list[int]] = []
        for answer in await asyncio.gather(*questions, return_exceptions=True):
            if isinstance(answer, list):
                answers.append(answer)
            elif not isinstance(answer, RedisError):
                raise answer
        return answers
