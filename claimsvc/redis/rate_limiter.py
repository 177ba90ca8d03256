"""Who has asked how often, in Redis; see `ports.Quotas`.

Each quota of each subject is one key on the one master that the subject chooses. Requests that come while that master
is being asked are asked about together next, so however many there are, each master has one question at a time.

A quota is never worth a claim: a master that takes longer than it should, or fails, is not waited for. What counts is
not the time alone, but also that this process has looked for the answer several times since. Where the process itself
is what is late, as it is under a flood of requests, the quota must hold.
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

# A master usually answers within a millisecond or two. Looked for ten times in 50 ms.
_LOOK_SECONDS = 0.005
_LOOKS = 10
# A script holds its master up for as long as it runs: a millisecond for so many.
_MOST_AT_ONCE = 500
# More than that many claims are not waited for either: they wait in `batching`, which refuses what is too much.
_MOST_WAITING = 10_000

_Answer = asyncio.Future[QuotaStanding | None]


@dataclass(slots=True)
class _Request:
    key: str
    quota: Quota
    answer: _Answer


class RedisQuotas:
    """`ports.Quotas`.

    Args:
        masters: share the subjects among them.
        quotas: those that there are, in the order in which they are asked about.
        observer: told of each decision.
    """

    def __init__(self, masters: Sequence[Master], quotas: Sequence[Quota], observer: QuotaObserver) -> None:
        self.quotas = tuple(quotas)
        self._lines = [_Line(master) for master in masters]
        self._observer = observer

    async def take(self, subjects: Mapping[str, str]) -> Sequence[QuotaStanding]:
        standings = []
        for quota in self.quotas:
            if (subject := subjects.get(quota.name)) is None:
                continue
            key = _key(quota, subject)
            standing = await self._lines[place_of(key, len(self._lines))].ask(key, quota)
            if standing is None:
                self._observer.quota_decided(quota.name, "unknown")
                continue
            standings.append(standing)
            self._observer.quota_decided(quota.name, "refused" if standing.is_exceeded else "allowed")
            if standing.is_exceeded:
                break
        return standings

    async def settle(self) -> None:
        """Wait for the masters' answers, which have their limits."""
        await asyncio.gather(*(line.settle() for line in self._lines))


class _Line:
    """The requests that one master is asked about."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._waiting: list[_Request] = []
        self._asking: asyncio.Task[None] | None = None
        # Whether the master is late with an answer: nobody waits for it until it has come.
        self._is_late = False

    def ask(self, key: str, quota: Quota) -> _Answer:
        """Where the key's subject stands after this request; None if that cannot be learnt in time."""
        answer: _Answer = asyncio.get_running_loop().create_future()
        if self._is_late or len(self._waiting) >= _MOST_WAITING:
            answer.set_result(None)
            return answer
        self._waiting.append(_Request(key, quota, answer))
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask_about_all())
        return answer

    async def settle(self) -> None:
        if self._asking is not None:
            await asyncio.wait([self._asking])

    async def _ask_about_all(self) -> None:
        asked: list[_Request] = []
        try:
            while self._waiting:
                asked, self._waiting = self._waiting[:_MOST_AT_ONCE], self._waiting[_MOST_AT_ONCE:]
                call = asyncio.create_task(self._call(asked))
                if not await _is_done_in_time(call):
                    self._is_late = True
                    _let_through([*asked, *self._waiting])
                    self._waiting = []
                    # Not cancelled: it has a limit of its own, and at that the master is found down.
                    await asyncio.wait([call])
                    self._is_late = False
                call.result()
        finally:
            # Whatever happened, nobody is left waiting.
            self._asking = None
            self._is_late = False
            _let_through([*asked, *self._waiting])
            self._waiting = []

    async def _call(self, asked: Sequence[_Request]) -> None:
        arguments = [
            number
            for request in asked
            for number in (request.quota.seconds * 1_000_000 // request.quota.requests, request.quota.requests)
        ]
        try:
            told = await _take(self._master, [request.key for request in asked], *arguments)
        except RedisError:
            return _let_through(asked)
        for place, request in enumerate(asked):
            is_exceeded, remaining, microseconds = told[3 * place : 3 * place + 3]
            if not request.answer.done():
                request.answer.set_result(
                    QuotaStanding(request.quota, bool(is_exceeded), remaining, microseconds / 1_000_000)
                )
        return None


async def _is_done_in_time(call: "asyncio.Task[None]") -> bool:
    for _ in range(_LOOKS):
        # Each look is a turn of the event loop at least, in which what has come from the master is read.
        done, _ = await asyncio.wait([call], timeout=_LOOK_SECONDS)
        if done:
            return True
    return False


def _let_through(requests: Sequence[_Request]) -> None:
    for request in requests:
        if not request.answer.done():
            request.answer.set_result(None)


def _key(quota: Quota, subject: str) -> str:
    """Without the subject itself: users and addresses are nobody's business who looks into a master.

    A quota that is changed begins anew, because what was counted for another means nothing for it.
    """
    text = f"{quota.name} {quota.requests}/{quota.seconds} {subject}"
    return f"claim:quota:{hashlib.sha256(text.encode()).hexdigest()[:32]}"


@asynccontextmanager
async def open_quotas(
    masters: Sequence[Master], quotas: Sequence[Quota], observer: QuotaObserver
) -> AsyncIterator[RedisQuotas]:
    """See `RedisQuotas`; on leaving, no master is being asked any more."""
    opened = RedisQuotas(masters, quotas, observer)
    try:
        yield opened
    finally:
        await opened.settle()
