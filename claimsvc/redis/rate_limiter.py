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

from redis.exceptions import RedisError

from claimsvc.domain import Quota, QuotaStanding
from claimsvc.ports import PendingStandings, QuotaObserver
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


class RedisQuotas:
    """`ports.Quotas`.

    Args:
        masters: the counts are distributed over them.
        quotas: in the order in which they are checked.
        observer: receives each decision.
    """

    def __init__(self, masters: Sequence[Master], quotas: Sequence[Quota], observer: QuotaObserver) -> None:
        self.quotas = tuple(quotas)
        self._queues = [_MasterQueue(master, self.quotas) for master in masters]
        self._observer = observer

    async def take(self, subjects: Mapping[str, str]) -> Sequence[QuotaStanding]:
        return await self.begin(subjects)

    def begin(self, subjects: Mapping[str, str]) -> PendingStandings:
        counted = _Counted(self, subjects)
        counted.go_on()
        return counted.standings

    def count(self, request: "_Request") -> None:
        """Count a request against one quota; `request.tell` receives the standing."""
        self._queues[place_of(request.key, len(self._queues))].count(request)

    def decided(self, quota: Quota, standing: QuotaStanding | None) -> None:
        """Report a decision to the observer; None if the standing could not be read."""
        result = "unknown" if standing is None else "refused" if standing.is_exceeded else "allowed"
        self._observer.quota_decided(quota.name, result)

    async def drain(self) -> None:
        """Wait until no call to a master is in progress. The clients' timeouts bound the wait."""
        await asyncio.gather(*(queue.drain() for queue in self._queues))


class _Counted:
    """A request that is counted against each quota in turn, up to the first that is exceeded.

    Plain calls lead from one quota to the next, because a task for each request would cost more than the counting.

    Args:
        quotas: count it.
        subjects: as of `ports.Quotas`.

    Attributes:
        standings: resolved when the last of them is known.
    """

    __slots__ = ("_found", "_left", "_quotas", "_subjects", "standings")

    def __init__(self, quotas: RedisQuotas, subjects: Mapping[str, str]) -> None:
        self._quotas = quotas
        self._subjects = subjects
        self._left = iter(quotas.quotas)
        self._found: list[QuotaStanding] = []
        self.standings: PendingStandings = asyncio.get_running_loop().create_future()

    def go_on(self) -> None:
        """Count the request against the next quota that it has a subject for."""
        for quota in self._left:
            subject = self._subjects.get(quota.name)
            if subject is not None:
                self._quotas.count(_Request(_key(quota, subject), quota, self))
                return
        self.standings.set_result(self._found)

    def told(self, quota: Quota, standing: QuotaStanding | None) -> None:
        """Take a quota's standing; None if it could not be read."""
        if self.standings.done():
            return  # cancelled: nobody waits for it
        self._quotas.decided(quota, standing)
        if standing is not None:
            self._found.append(standing)
            if standing.is_exceeded:
                self.standings.set_result(self._found)
                return
        self.go_on()


class _Request:
    """One request to count, by one key."""

    __slots__ = ("_counted", "key", "quota")

    def __init__(self, key: str, quota: Quota, counted: _Counted) -> None:
        self.key = key
        self.quota = quota
        self._counted: _Counted | None = counted

    def tell(self, standing: QuotaStanding | None) -> None:
        """Tell the standing, if none was told yet; None if the master fails or is late."""
        counted, self._counted = self._counted, None
        if counted is not None:
            counted.told(self.quota, standing)


class _MasterQueue:
    """The requests that wait to be counted by one master."""

    def __init__(self, master: Master, quotas: Sequence[Quota]) -> None:
        self._master = master
        # For the script: the number of each quota, a digit, and the arguments that describe all of them.
        self._number_of = {quota.name: str(number) for number, quota in enumerate(quotas, 1)}
        self._described = [number for quota in quotas for number in _numbers(quota)]
        self._waiting: list[_Request] = []
        self._sender: asyncio.Task[None] | None = None
        # While the master is late, requests pass uncounted.
        self._is_late = False

    def count(self, request: _Request) -> None:
        """Count a request, together with all that arrive in the same turn of the event loop."""
        if self._is_late or len(self._waiting) >= _MOST_WAITING:
            request.tell(None)
            return
        self._waiting.append(request)
        if self._sender is None:
            self._sender = asyncio.create_task(self._send_all())

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
                    self._let_through(sent)
                    # Not cancelled: the client's timeout ends it, and marks the master as down.
                    await asyncio.wait([call])
                    self._is_late = False
                call.result()
        finally:
            # No request is left waiting, even after an unexpected error.
            self._sender = None
            self._is_late = False
            self._let_through(sent)

    def _let_through(self, sent: Sequence[_Request]) -> None:
        """Let requests pass uncounted: those that were sent, and those that wait."""
        requests, self._waiting = [*sent, *self._waiting], []
        for request in requests:
            request.tell(None)

    async def _call(self, requests: Sequence[_Request]) -> None:
        numbers_of = "".join([self._number_of[request.quota.name] for request in requests])
        try:
            numbers = await _take(self._master, [request.key for request in requests], numbers_of, *self._described)
        except RedisError:
            for request in requests:
                request.tell(None)
            return
        for place, request in enumerate(requests):
            is_exceeded, remaining, microseconds = numbers[3 * place : 3 * place + 3]
            request.tell(QuotaStanding(request.quota, bool(is_exceeded), remaining, microseconds / 1_000_000))


def _numbers(quota: Quota) -> tuple[int, int]:
    """A quota for the script: the microseconds after which one more request is allowed, and how many are at once."""
    return quota.seconds * 1_000_000 // quota.requests, quota.requests


async def _is_done_in_time(call: "asyncio.Task[None]") -> bool:
    for _ in range(_LOOKS):
        # Each look takes at least one turn of the event loop, which reads what the master has sent.
        done, _ = await asyncio.wait([call], timeout=_LOOK_SECONDS)
        if done:
            return True
    return False


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
