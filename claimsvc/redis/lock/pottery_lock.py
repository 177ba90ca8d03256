"""Taking one lock on all masters, by pottery's `AIORedlock`. This is the only file that knows pottery.

What pottery leaves open is closed here: its key's prefix, what importing it does to the process, its endless loop and
its silence about masters that are down, tokens that are used twice, and who is woken when a lock is given back.
"""

import contextlib
import json
import logging
import os
import time
from collections.abc import Iterator, Sequence

from claimsvc.redis.lock.acquisition import GivenBack, masters_are_gone, release
from claimsvc.redis.lock.identity import token_of
from claimsvc.redis.masters import Master


@contextlib.contextmanager
def _contained() -> Iterator[None]:
    """Undo what importing pottery does to the process: it replaces `json.dumps`, and it reads REDIS_URL and fails
    when that is not to its taste."""
    dumps, url = json.dumps, os.environ.pop("REDIS_URL", None)
    try:
        yield
    finally:
        json.dumps = dumps
        if url is not None:
            os.environ["REDIS_URL"] = url


with _contained():
    from pottery import AIORedlock
    from pottery.exceptions import QuorumIsImpossible, ReleaseUnlockedLock

# pottery logs a stack trace for each command that a master fails. Masters are watched in `masters`, one line a change.
logging.getLogger("pottery").disabled = True


class SingleAcquisition(AIORedlock):
    """`Acquisition` of one lock `claim:coupon:<name>`."""

    # pottery puts its prefix before the key: `claim` and `coupon:<name>` make `claim:coupon:<name>`.
    _KEY_PREFIX = "claim"

    def __init__(self, coupon_name: str, masters: Sequence[Master], *, instance: str, ttl_seconds: float) -> None:
        self._instance = instance
        super().__init__(key=f"coupon:{coupon_name}", masters=masters, auto_release_time=ttl_seconds)
        self.coupon_names: Sequence[str] = (coupon_name,)
        self._taken_since = time.monotonic()
        self._woke_another = False

    # pottery keeps its token in a slot of this name, and makes it of chance alone.
    @property
    def _uuid(self) -> str:
        return self._token

    @_uuid.setter
    def _uuid(self, unique: str) -> None:
        self._token = token_of(self._instance, unique) if unique else ""

    async def take(self) -> Sequence[str]:
        # Without these flags it would try for ever, and take a master that is down for one whose lock is another's.
        try:
            free = await self.acquire(blocking=False, raise_on_redis_errors=True)
        except QuorumIsImpossible as error:
            raise masters_are_gone() from error
        return self.coupon_names if free else ()

    async def give_back(self, coupon_names: Sequence[str]) -> GivenBack:
        try:
            await self.release(raise_on_redis_errors=True)
        except ReleaseUnlockedLock:
            return GivenBack(lost=coupon_names, woken=())
        except QuorumIsImpossible as error:
            raise masters_are_gone() from error
        return GivenBack(lost=(), woken=coupon_names if self._woke_another else ())

    async def _release_script(  # type: ignore[override]
        self, *, keys: Sequence[str], args: Sequence[str], client: Master
    ) -> bool:
        # In the place of pottery's own script, which knows nothing of those who wait.
        [token] = args
        [given_back] = await release(
            client, keys, token, taken_since=self._taken_since, ttl_seconds=self.auto_release_time
        )
        self._woke_another |= given_back == 2
        return bool(given_back)
