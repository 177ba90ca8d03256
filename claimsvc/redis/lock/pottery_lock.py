"""Takes one lock on all masters with pottery's `AIORedlock`. This is the only file that imports pottery.

It changes pottery's key prefix, undoes the side effects of importing it, replaces its endless retries, reports masters
that are down, uses a new token for each attempt, and wakes waiting instances on release.
"""

import contextlib
import json
import logging
import os
import time
from collections.abc import Iterator, Sequence

from claimsvc.redis.lock.acquisition import ReleaseResult, no_majority, release
from claimsvc.redis.lock.identity import token_of
from claimsvc.redis.masters import Master


@contextlib.contextmanager
def _contained() -> Iterator[None]:
    """Undo the side effects of importing pottery: it replaces `json.dumps`, and fails if REDIS_URL is not a URL that
    it accepts."""
    dumps, url = json.dumps, os.environ.pop("REDIS_URL", None)
    try:
        yield
    finally:
        json.dumps = dumps
        if url is not None:
            os.environ["REDIS_URL"] = url


# pottery logs that it is imported, and a stack trace for each failed command. `redis.masters` logs one line when a
# master's state changes.
logging.getLogger("pottery").disabled = True

with _contained():
    from pottery import AIORedlock
    from pottery.exceptions import QuorumIsImpossible, ReleaseUnlockedLock


class PotteryAcquisition(AIORedlock):
    """`Acquisition` of one lock `claim:coupon:<name>`."""

    # pottery joins prefix and key: `claim` and `coupon:<name>` become `claim:coupon:<name>`.
    _KEY_PREFIX = "claim"

    def __init__(
        self, coupon_name: str, masters: Sequence[Master], *, instance: str, ttl_seconds: float, combines: bool
    ) -> None:
        self._instance = instance
        self._combines = combines
        self.successor = ""
        super().__init__(key=f"coupon:{coupon_name}", masters=masters, auto_release_time=ttl_seconds)
        self.coupon_names: Sequence[str] = (coupon_name,)
        self._taken_since = time.monotonic()
        self._woke_another = False

    # pottery stores its token in an attribute of this name, and generates it at random.
    @property
    def _uuid(self) -> str:
        return self._token

    @_uuid.setter
    def _uuid(self, unique: str) -> None:
        self._token = token_of(self._instance, unique, combines=self._combines) if unique else ""

    async def take(self) -> Sequence[str]:
        # Without these flags it would retry without end, and treat a master that is down as one with the lock taken.
        try:
            free = await self.acquire(blocking=False, raise_on_redis_errors=True)
        except QuorumIsImpossible as error:
            raise no_majority() from error
        return self.coupon_names if free else ()

    async def give_back(self, coupon_names: Sequence[str]) -> ReleaseResult:
        try:
            await self.release(raise_on_redis_errors=True)
        except ReleaseUnlockedLock:
            return ReleaseResult(lost=coupon_names, woken=())
        except QuorumIsImpossible as error:
            raise no_majority() from error
        return ReleaseResult(lost=(), woken=coupon_names if self._woke_another else ())

    async def _release_script(  # type: ignore[override]
        self, *, keys: Sequence[str], args: Sequence[str], client: Master
    ) -> bool:
        # Replaces pottery's script, which does not wake waiting instances.
        [token] = args
        [given_back] = await release(
            client,
            keys,
            token,
            taken_since=self._taken_since,
            ttl_seconds=self.auto_release_time,
            successor=self.successor,
        )
        self._woke_another |= given_back == 2
        return bool(given_back)
