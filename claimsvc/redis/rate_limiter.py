"""Rate limits, counted in Redis; see `ports.Quotas`.

Each quota of each subject is one key, and a hash of the key selects its master. Each master receives one call at a
time: requests that arrive during a call are counted together in the next one.

A quota must not delay claims: if a master fails or is late, requests pass uncounted. A master is late only if this
process has also looked for its answer several times. If the process itself is slow, as under a flood of requests, the
quotas still apply.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from redis.exceptions import RedisError

from claimsvc.domain import Quota, QuotaStanding
from claimsvc.ports import QuotaObserver
from claimsvc.redis.masters import Master, place_of
from claimsvc.redis.scripts import Script

_take = Script("quota_take.lua")

# A master usually answers within two milliseconds. It is late after ten looks in 50 ms.
_LOOK_SECONDS = 0.005
_LOOKS = 10
# A script blocks its master while it runs: about a millisecond for this many requests.
_MOST_PER_CALL = 500
# Further requests pass uncounted. `claiming.batching` limits how many claims wait.
_MOST_WAITING = 10_000

_PendingStanding = asyncio.Future[QuotaStanding | None]


@dataclass(slots=True)
class _Request:
    key: str
    quota: Quota
    standing: _PendingStanding


class RedisQuotas:
    """`ports.Quotas`.

    Args:
        masters: the counts are distributed over them.
        quotas: in the order in which they are checked.
        observer: receives each decision.
    """

    def __init__(self, masters: Sequence[Master], quotas: Sequence[Quota], observer: QuotaObserver) -> None:
        self.quotas = tuple(quotas)
        self._queues = [_MasterQueue(master) for master in masters]
        self._observer = observer

    async def take(self, subjects: Mapping[str, str]) -> Sequence[QuotaStanding]:
        standings = []
        for quota in self.quotas:
            if (subject := subjects.get(quota.name)) is None:
                continue
            key = _key(quota, subject)
            standing = await self._queues[place_of(key, len(self._queues))].take(key, quota)
            if standing is None:
                self._observer.quota_decided(quota.name, "unknown")
                continue
            standings.append(standing)
            self._observer.quota_decided(quota.name, "refused" if standing.is_exceeded else "allowed")
            if standing.is_exceeded:
                break
        return standings

    async def drain(self) -> None:
        """Wait until no call to a master is in progress. The clients' timeouts bound the wait."""
        await asyncio.gather(*(queue.drain() for queue in self._queues))


class _MasterQueue:
    """The requests that wait to be counted by one master."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._waiting: list[_Request] = []
        self._sender: asyncio.Task[None] | None = None
        # While the master is late, requests pass uncounted.
        self._is_late = False

    def take(self, key: str, quota: Quota) -> _PendingStanding:
        """Count a request. Resolves to the subject's standing after it; None if the master fails or is late."""
        standing: _PendingStanding = asyncio.get_running_loop().create_future()
        if self._is_late or len(self._waiting) >= _MOST_WAITING:
            standing.set_result(None)
            return standing
        self._waiting.append(_Request(key, quota, standing))
        if self._sender is None:
            self._sender = asyncio.create_task(self._send_all())
        return standing

    async def drain(self) -> None:
        if self._sender is not None:
            await asyncio.wait([self._sender])

    async def _send_all(self) -> None:
        sent: list[_Request] = []
        try:
            while self._waiting:
                sent, self._waiting = self._waiting[:_MOST_PER_CALL], self._waiting[_MOST_PER_CALL:]
                call = asyncio.create_task(self._call(sent))
                if not await _is_done_in_time(call):
                    self._is_late = True
                    _let_through([*sent, *self._waiting])
                    self._waiting = []
                    # Not cancelled: the client's timeout ends it, and marks the master as down.
                    await asyncio.wait([call])
                    self._is_late = False
                call.result()
        finally:
            # No request is left waiting, even after an unexpected error.
            self._sender = None
            self._is_late = False
            _let_through([*sent, *self._waiting])
            self._waiting = []

    async def _call(self, requests: Sequence[_Request]) -> None:
        arguments = [
            number
            for request in requests
            for number in (request.quota.seconds * 1_000_000 // request.quota.requests, request.quota.requests)
        ]
        try:
            numbers = await _take(self._master, [request.key for request in requests], *arguments)
        except RedisError:
            return _let_through(requests)
        for place, request in enumerate(requests):
            is_exceeded, remaining, microseconds = numbers[3 * place : 3 * place + 3]
            if not request.standing.done():
                request.standing.set_result(
                    QuotaStanding(request.quota, bool(is_exceeded), remaining, microseconds / 1_000_000)
                )
        return None


async def _is_done_in_time(call: "asyncio.Task[None]") -> bool:
    for _ in range(_LOOKS):
        # Each look takes at least one turn of the event loop, which reads what the master has sent.
        done, _ = await asyncio.wait([call], timeout=_LOOK_SECONDS)
        if done:
            return True
    return False


def _let_through(requests: Sequence[_Request]) -> None:
    for request in requests:
        if not request.standing.done():
            request.standing.set_result(None)


def _key(quota: Quota, subject: str) -> str:
    """Return the key of a count. It is a digest, so that the master's data shows no users or addresses.

    The quota's numbers are part of it: a changed quota starts from zero.
    """
    text = f"{quota.name} {quota.requests}/{quota.seconds} {subject}"
    return f"claim:quota:{hashlib.sha256(text.encode()).hexdigest()[:32]}"


@asynccontextmanager
async def open_quotas(
    masters: Sequence[Master], quotas: Sequence[Quota], observer: QuotaObserver
) -> AsyncIterator[RedisQuotas]:
    """Open `RedisQuotas`. On leaving, wait for the calls in progress."""
    opened = RedisQuotas(masters, quotas, observer)
    try:
        yield opened
    finally:
        await opened.drain()
