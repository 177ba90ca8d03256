"""Failpoints: points in the processing of a claim at which this process fails on purpose, for the fault suite.

Only `CLAIMSVC_FAILPOINTS` at the start of the process enables them. Without it they cost nothing, because the
composition root then does not wrap the parts of the service. Example:

    CLAIMSVC_FAILPOINTS=before-commit=exit@3,after-lock=stall:2

Points of a claim: `after-lock` (locks were just taken), `before-commit` (a transaction of claims is written but not
committed), `after-commit` (it is committed, but the result was not received), `before-reply` (a claim is decided, but
its answer was not sent). The two around the commit are reached by transactions of tickets, too.

Points of a ticket: `after-lease` (tickets are leased, their claims have not begun), `before-end` (a claim and the end
of its ticket are written but not committed), `after-end` (they are committed, but the result was not received).

Actions: `exit` (the process ends immediately, as by `kill -9`), `stop` (the process stops, as by SIGSTOP, until
SIGCONT), `stall:SECONDS` (the event loop hangs), `wait:SECONDS` (only this claim or batch waits). With `@n` the action
happens only the n-th time; without it, every time.
"""

import asyncio
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self, cast

import psycopg
import structlog

from claimsvc.domain import ClaimOptions, ClaimOutcome
from claimsvc.errors import SettingsError
from claimsvc.ports import AnyClaims, Dispatched, Lease, Lock, PendingOutcome, Tickets

AFTER_LOCK = "after-lock"
BEFORE_COMMIT = "before-commit"
AFTER_COMMIT = "after-commit"
BEFORE_REPLY = "before-reply"
AFTER_LEASE = "after-lease"
BEFORE_END = "before-end"
AFTER_END = "after-end"
POINTS = (AFTER_LOCK, BEFORE_COMMIT, AFTER_COMMIT, BEFORE_REPLY, AFTER_LEASE, BEFORE_END, AFTER_END)

# What only `claimsvc.postgres.claiming.ticket_ends` says. A scenario fails if that point is never reached.
_WRITES_ENDS = b"SET state = claimed.state"

EXIT_FAILPOINT = 70  # EX_SOFTWARE of sysexits.h

_WORD = re.compile(
    rf"(?P<point>{'|'.join(POINTS)})=(?P<action>exit|stop|(?:stall|wait):(?P<seconds>\d+(?:\.\d+)?))(?:@(?P<at>[1-9]\d*))?",
    re.ASCII,
)

_log = structlog.get_logger("claimsvc.failpoints")


@dataclass(slots=True)
class _Failpoint:
    point: str
    action: str
    seconds: float
    at: int
    """Fires only the n-th time; 0 for every time."""
    reached: int = 0

    async def reach(self) -> None:
        self.reached += 1
        if self.at not in (0, self.reached):
            return
        _log.warning("failpoint fired", point=self.point, action=self.action, time=self.reached)
        if self.action == "exit":
            os._exit(EXIT_FAILPOINT)
        elif self.action == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif self.action.startswith("stall"):
            time.sleep(self.seconds)  # noqa: ASYNC251 - it must block the event loop
        else:
            await asyncio.sleep(self.seconds)


class Failpoints:
    """The failpoints of this process, with wrappers for the parts of the service that reach them."""

    def __init__(self, failpoints: Sequence[_Failpoint]) -> None:
        self._failpoints = failpoints

    @classmethod
    def parse(cls, words: Sequence[str]) -> Self | None:
        """Parse the setting. Returns None if it is empty.

        Raises:
            SettingsError: a word is not a valid failpoint.
        """
        failpoints = []
        for word in words:
            found = _WORD.fullmatch(word)
            if found is None:
                raise SettingsError(
                    f"CLAIMSVC_FAILPOINTS: {word!r} is not a failpoint. It is for tests; an example is "
                    f"before-commit=exit@3. Points: {', '.join(POINTS)}. "
                    "Actions: exit, stop, stall:SECONDS, wait:SECONDS"
                )
            failpoints.append(
                _Failpoint(found["point"], found["action"], float(found["seconds"] or 0), int(found["at"] or 0))
            )
        if not failpoints:
            return None
        _log.warning("failpoints are on: this process is going to fail on purpose", failpoints=list(words))
        return cls(failpoints)

    async def reach(self, point: str) -> None:
        """Execute the failpoints of this point."""
        for failpoint in self._failpoints:
            if failpoint.point == point:
                await failpoint.reach()

    def lock(self, lock: Lock) -> Lock:
        """Wrap a lock so that it reaches `after-lock`."""
        return _FailingLock(lock, self)

    def tickets(self, tickets: Tickets) -> Tickets:
        """Wrap the store of tickets so that it reaches `after-lease`."""
        return cast("Tickets", _FailingTickets(tickets, self))

    def claims(self, claims: AnyClaims) -> AnyClaims:
        """Wrap the strategies so that they reach `before-reply`."""
        return _FailingClaims(claims, self)

    def connect(self, *args: Any, **options: Any) -> Awaitable[psycopg.AsyncConnection[Any]]:
        """Open a connection to PostgreSQL on which the points around the commit are reached."""
        failpoints = self

        class Connection(psycopg.AsyncConnection[Any]):
            # Only transactions of claims and of tickets have a COMMIT of the service's own in a pipeline.
            _writes_ends = False

            async def execute(self, query: Any, *arguments: Any, **options: Any) -> Any:
                if query == "BEGIN":
                    self._writes_ends = False
                elif query == "COMMIT":
                    if self._writes_ends:
                        await failpoints.reach(BEFORE_END)
                    await failpoints.reach(BEFORE_COMMIT)
                elif _WRITES_ENDS in (query if isinstance(query, bytes) else str(query).encode()):
                    self._writes_ends = True
                return await super().execute(query, *arguments, **options)

            @asynccontextmanager
            async def pipeline(self) -> AsyncIterator[Any]:
                async with super().pipeline() as opened:
                    yield opened
                writes_ends, self._writes_ends = self._writes_ends, False
                if writes_ends:
                    await failpoints.reach(AFTER_END)
                await failpoints.reach(AFTER_COMMIT)

        return Connection.connect(*args, **options)


class _FailingLock:
    """`ports.Lock`."""

    def __init__(self, lock: Lock, failpoints: Failpoints) -> None:
        self._lock = lock
        self._failpoints = failpoints

    def hold_free(self, coupon_names: Sequence[str]) -> AbstractAsyncContextManager[Lease]:
        return self._held(self._lock.hold_free(coupon_names))

    def hold(self, coupon_name: str, *, was_busy: bool = False) -> AbstractAsyncContextManager[Lease]:
        return self._held(self._lock.hold(coupon_name, was_busy=was_busy))

    @asynccontextmanager
    async def _held(self, holding: AbstractAsyncContextManager[Lease]) -> AsyncIterator[Lease]:
        async with holding as lease:
            if lease.coupon_names:
                await self._failpoints.reach(AFTER_LOCK)
            yield lease


class _FailingTickets:
    """`ports.Tickets`: leases tickets and fails; everything else is the store's."""

    def __init__(self, tickets: Tickets, failpoints: Failpoints) -> None:
        self._tickets = tickets
        self._failpoints = failpoints

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tickets, name)

    async def dispatch(self, instance: str, *, lease_seconds: float, freed: Collection[str] = ()) -> Dispatched:
        dispatched = await self._tickets.dispatch(instance, lease_seconds=lease_seconds, freed=freed)
        if dispatched.started:
            await self._failpoints.reach(AFTER_LEASE)
        return dispatched


class _FailingClaims:
    """`ports.AnyClaims`."""

    def __init__(self, claims: AnyClaims, failpoints: Failpoints) -> None:
        self._claims = claims
        self._failpoints = failpoints

    def claim(self, coupon_name: str, user_id: str, options: ClaimOptions | None = None) -> PendingOutcome:
        answer = PendingOutcome()
        answer.follow(self._decided(self._claims.claim(coupon_name, user_id, options)))
        return answer

    def claim_first(self, coupon_type: str | None, user_id: str, options: ClaimOptions | None = None) -> PendingOutcome:
        answer = PendingOutcome()
        answer.follow(self._decided(self._claims.claim_first(coupon_type, user_id, options)))
        return answer

    async def _decided(self, answer: PendingOutcome) -> ClaimOutcome:
        outcome = await answer
        await self._failpoints.reach(BEFORE_REPLY)
        return outcome

    async def drain(self) -> None:
        await self._claims.drain()
