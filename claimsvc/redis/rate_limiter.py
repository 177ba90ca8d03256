"""Rate limits, counted in Redis; see `ports.Quotas`.

Each quota of each subject is one key, and a hash of the key selects its master. Each master receives one call at a
time: requests that arrive during a call are counted together in the next one, those of one key by one number.

A quota must not delay claims: if a master fails or is late, requests pass uncounted. A master is late only if this
process has also looked for its answer several times. If the process itself is slow, as under a flood of requests, the
quotas still apply.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cache
from itertools import islice
from typing import Any

import hiredis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError

from claimsvc.domain import Quota, QuotaStanding
from claimsvc.ports import PendingStandings, QuotaObserver
from claimsvc.redis.masters import Master, place_of
from claimsvc.redis.scripts import Script

_take = Script("quota_take.lua")

# A master usually answers within two milliseconds. It is late after ten looks in 50 ms.
_LOOK_SECONDS = 0.005
_LOOKS = 10
# Each call is a durable write. Requests that come one after another, as under load, wait for others: so long, or until
# there are most of the usual number. Whoever comes alone does not wait.
_GATHER_SECONDS = 0.001
_BUSY_SECONDS = 0.05
_FORGETTING = 0.95
# A script blocks its master while it runs: about a millisecond for this many keys.
_MOST_PER_CALL = 500
# Further requests pass uncounted. `claiming.batching` limits how many claims wait.
_MOST_WAITING = 10_000
# An address asks again and again, and its key is a digest.
_KEYS_REMEMBERED = 10_000


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
        self._keys: dict[tuple[str, str], tuple[str, _MasterQueue]] = {}

    async def take(self, subjects: Mapping[str, str]) -> Sequence[QuotaStanding]:
        return await self.begin(subjects)

    def begin(self, subjects: Mapping[str, str]) -> PendingStandings:
        counted = _Counted(self, subjects)
        counted.go_on()
        return counted.standings

    def count(self, quota: Quota, subject: str, request: "_Counted") -> None:
        """Count a request against one quota; `request.told` receives the standing."""
        found = self._keys.get((quota.name, subject))
        if found is None:
            if len(self._keys) >= _KEYS_REMEMBERED:
                self._keys.clear()
            key = _key(quota, subject)
            found = self._keys[quota.name, subject] = key, self._queues[place_of(key, len(self._queues))]
        key, queue = found
        queue.count(key, quota, request)

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

    __slots__ = ("_asked", "_found", "_left", "_quotas", "_subjects", "standings")

    def __init__(self, quotas: RedisQuotas, subjects: Mapping[str, str]) -> None:
        self._quotas = quotas
        self._subjects = subjects
        self._left = iter(quotas.quotas)
        self._asked: Quota | None = None
        self._found: list[QuotaStanding] = []
        self.standings: PendingStandings = asyncio.get_running_loop().create_future()

    def go_on(self) -> None:
        """Count the request against the next quota that it has a subject for."""
        for quota in self._left:
            subject = self._subjects.get(quota.name)
            if subject is not None:
                self._asked = quota
                self._quotas.count(quota, subject, self)
                return
        self.standings.set_result(self._found)

    def told(self, quota: Quota, standing: QuotaStanding | None) -> None:
        """Take a quota's standing, the first time; None if it could not be read."""
        if self._asked is not quota or self.standings.done():
            return  # it was told, or is cancelled: nobody waits for it
        self._asked = None
        self._quotas.decided(quota, standing)
        if standing is not None:
            self._found.append(standing)
            if standing.is_exceeded:
                self.standings.set_result(self._found)
                return
        self.go_on()


# By key, in the order in which they came: the quota, and the requests.
_Requests = dict[str, tuple[Quota, list[_Counted]]]


class _MasterQueue:
    """The requests that wait to be counted by one master.

    Plain calls, no task: a call would cost more than the requests that it counts.
    """

    def __init__(self, master: Master) -> None:
        self._master = master
        self._waiting: _Requests = {}
        self._count = 0
        self._sent: _Requests = {}
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        # While the master is late, requests pass uncounted.
        self._is_late = False
        self._looks = 0
        self._next_look: asyncio.TimerHandle | None = None
        # While more requests are expected: how many, and the timer that ends the wait for them.
        self._busy_until = 0.0
        self._usual_count = 0.0
        self._gathering: asyncio.TimerHandle | None = None

    def count(self, key: str, quota: Quota, request: _Counted) -> None:
        """Count a request, together with all that arrive in the same turn of the event loop."""
        if self._is_late or self._count >= _MOST_WAITING:
            request.told(quota, None)
            return
        self._count += 1
        same = self._waiting.get(key)
        if same is None:
            self._waiting[key] = (quota, [request])
        else:
            same[1].append(request)
        if self._is_idle.is_set():
            self._is_idle.clear()
            self._send_soon()
        elif self._gathering is not None and self._are_most():
            self._gathering.cancel()
            self._gathering = None
            asyncio.get_running_loop().call_soon(self._send)

    async def drain(self) -> None:
        await self._is_idle.wait()

    def _are_most(self) -> bool:
        return 4 * self._count >= 3 * self._usual_count

    def _send_soon(self) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() < self._busy_until and not self._are_most():
            self._gathering = loop.call_later(_GATHER_SECONDS, self._send)
        else:
            loop.call_soon(self._send)

    def _send(self) -> None:
        loop = asyncio.get_running_loop()
        self._gathering = None
        self._usual_count = max(self._count, _FORGETTING * self._usual_count)
        if self._count > 1:
            self._busy_until = loop.time() + _BUSY_SECONDS
        if len(self._waiting) <= _MOST_PER_CALL:
            self._sent, self._waiting, self._count = self._waiting, {}, 0
        else:
            self._sent = {key: self._waiting.pop(key) for key in list(islice(self._waiting, _MOST_PER_CALL))}
            self._count -= sum(len(requests) for _, requests in self._sent.values())
        self._looks = 0
        self._next_look = loop.call_later(_LOOK_SECONDS, self._look)
        self._call("EVALSHA", _take.digest)

    def _call(self, command: str, script: str) -> None:
        words: list[str | int] = [command, script, len(self._sent), *self._sent]
        for quota, requests in self._sent.values():
            words += (len(requests), *_numbers(quota))
        self._wired(words).add_done_callback(self._replied)

    def _wired(self, words: Sequence[str | int]) -> "asyncio.Future[Any]":
        """Send a command, by the wire if it is open."""
        try:
            if self._master.wire.is_open:
                return self._master.wire.send(*words)
        except (RedisConnectionError, RuntimeError):
            pass  # it is lost just now; uvloop has an error of its own for that
        return asyncio.create_task(self._ask(words))

    async def _ask(self, words: Sequence[str | int]) -> Any:
        """Call the script by the client, which connects, and finds out whether the master is down."""
        return await self._master.execute_command(*words)

    def _look(self) -> None:
        """Look whether the master is late. Between two looks, the event loop reads what it has sent."""
        self._looks += 1
        if self._looks < _LOOKS:
            self._next_look = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)
        else:
            # The call is not cancelled: it ends with the connection.
            self._next_look = None
            self._is_late = True
            late = self._sent, self._waiting
            self._sent, self._waiting, self._count = {}, {}, 0
            for uncounted in late:
                _let_through(uncounted)

    def _replied(self, reply: "asyncio.Future[Any]") -> None:
        failure = None if reply.cancelled() else reply.exception()
        if _is_unknown_script(failure) and not self._is_late:
            self._call("EVAL", _take.text)
            return
        if self._next_look is not None:
            self._next_look.cancel()
        was_late, self._is_late = self._is_late, False
        try:
            if failure is not None and not isinstance(failure, RedisError | hiredis.ReplyError):
                raise failure
            if failure is None and not was_late and not reply.cancelled():
                self._tell(reply.result())
        finally:
            # No request is left waiting, even after an unexpected error.
            sent, self._sent = self._sent, {}
            _let_through(sent)
            if self._waiting:
                self._send_soon()
            else:
                self._is_idle.set()

    def _tell(self, numbers: Sequence[int]) -> None:
        for (quota, requests), allowed, microseconds in zip(
            self._sent.values(), numbers[::2], numbers[1::2], strict=True
        ):
            seconds = microseconds / 1_000_000
            for place, request in enumerate(requests, 1):
                request.told(quota, QuotaStanding(quota, place > allowed, max(allowed - place, 0), seconds))
        self._sent = {}


def _let_through(uncounted: _Requests) -> None:
    for quota, requests in uncounted.values():
        for request in requests:
            request.told(quota, None)


def _is_unknown_script(failure: BaseException | None) -> bool:
    return isinstance(failure, NoScriptError) or (
        isinstance(failure, hiredis.ReplyError) and str(failure).startswith("NOSCRIPT")
    )


@cache
def _numbers(quota: Quota) -> tuple[int, int]:
    """A quota for the script: the microseconds after which one more request is allowed, and how many are at once."""
    return quota.seconds * 1_000_000 // quota.requests, quota.requests


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
