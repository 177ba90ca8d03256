"""Failpoints: moments of a claim at which this process fails on purpose, so that the fault suite can be exact.

They are named by `CLAIMSVC_FAILPOINTS` when the process starts, and can be switched on in no other way. When it is not
set nothing of this file is in the way of a claim: the composition root wraps the parts only if it is. Example:

    CLAIMSVC_FAILPOINTS=before-commit=exit@3,after-lock=stall:2

Points: `after-lock` (locks were just taken), `before-commit` (a transaction of claims is written, and not committed),
`after-commit` (it is committed, and nobody was told), `before-reply` (a claim is decided, and its answer not sent).

Actions: `exit` (the process is gone, as after `kill -9`), `stop` (it stops itself as by SIGSTOP, until SIGCONT),
`stall:SECONDS` (the event loop hangs), `wait:SECONDS` (only whoever is there waits). `@n` does it at the n-th time
and never again; without it, it is done every time.
"""

import asyncio
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

import structlog
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from claimsvc.domain import ClaimOptions, ClaimOutcome
from claimsvc.errors import SettingsError
from claimsvc.ports import AnyClaims, Lease, Lock, PendingOutcome

AFTER_LOCK = "after-lock"
BEFORE_COMMIT = "before-commit"
AFTER_COMMIT = "after-commit"
BEFORE_REPLY = "before-reply"
POINTS = (AFTER_LOCK, BEFORE_COMMIT, AFTER_COMMIT, BEFORE_REPLY)

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
    """At which time it fires; 0 for every time."""
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
            time.sleep(self.seconds)  # noqa: ASYNC251 - to hang the event loop is what it is for
        else:
            await asyncio.sleep(self.seconds)


class Failpoints:
    """The failpoints of this process, and what wraps the parts of the service so that they are reached."""

    def __init__(self, failpoints: Sequence[_Failpoint]) -> None:
        self._failpoints = failpoints

    @classmethod
    def parse(cls, words: Sequence[str]) -> Self | None:
        """Those that the setting names; None, which is how it should be, if there are none.

        Raises:
            SettingsError: a word is not one of the language above.
        """
        failpoints = []
        for word in words:
            found = _WORD.fullmatch(word)
            if found is None:
                raise SettingsError(
                    f"CLAIMSVC_FAILPOINTS: {word!r} is none; it is for tests, and looks like before-commit=exit@3 "
                    f"with one of {', '.join(POINTS)} and one of exit, stop, stall:SECONDS, wait:SECONDS"
                )
            failpoints.append(
                _Failpoint(found["point"], found["action"], float(found["seconds"] or 0), int(found["at"] or 0))
            )
        if not failpoints:
            return None
        _log.warning("failpoints are on: this process is going to fail on purpose", failpoints=list(words))
        return cls(failpoints)

    async def reach(self, point: str) -> None:
        """Do what was asked for at this point, if anything was."""
        for failpoint in self._failpoints:
            if failpoint.point == point:
                await failpoint.reach()

    def lock(self, lock: Lock) -> Lock:
        return _FailingLock(lock, self)

    def claims(self, claims: AnyClaims) -> AnyClaims:
        return _FailingClaims(claims, self)

    def transactions(self, engine: AsyncEngine) -> None:
        """Reach the points around the commit on every connection that the engine opens.

        Transactions of claims are the only ones in a pipeline, and the only ones whose COMMIT is a statement of ours.
        """

        def swap(connection: Any, _: Any) -> None:
            driver = connection.driver_connection
            execute, pipeline = driver.execute, driver.pipeline

            async def execute_noted(query: Any, *arguments: Any, **options: Any) -> Any:
                if query == "COMMIT":
                    await self.reach(BEFORE_COMMIT)
                return await execute(query, *arguments, **options)

            @asynccontextmanager
            async def pipeline_noted() -> AsyncIterator[Any]:
                async with pipeline() as opened:
                    yield opened
                await self.reach(AFTER_COMMIT)

            driver.execute, driver.pipeline = execute_noted, pipeline_noted

        event.listen(engine.sync_engine, "connect", swap)


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
