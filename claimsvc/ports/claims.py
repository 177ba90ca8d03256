"""Where claims are made, and the outcome to come of each."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from claimsvc.domain import (
    ClaimOptions,
    ClaimOutcome,
    StrategyName,
)


@dataclass(slots=True)
class LockWait:
    """When a lock was wanted, and when it was had: monotonic seconds."""

    wanted_at: float
    had_at: float | None = None


@dataclass(slots=True)
class Stages:
    """When claims that were decided together came how far: monotonic seconds, None for where they never came."""

    lock_wait: LockWait | None = None
    taken_at: float | None = None
    decided_at: float | None = None

    def seconds(self, arrived_at: float, ended_at: float) -> dict[str, float]:
        """How long each stage took for a claim that arrived and ended then; only stages that it came to.

        `queue_wait` is all of its waiting but `lock_wait`; `transaction` includes the wait for a connection.
        """
        taken_at = ended_at if self.taken_at is None else self.taken_at
        found = {"queue_wait": taken_at - arrived_at}
        if self.lock_wait is not None:
            had_at = taken_at if self.lock_wait.had_at is None else self.lock_wait.had_at
            # Who came while the lock was held already, or was being waited for, has waited less for it, or not at all.
            found["lock_wait"] = max(0.0, had_at - max(arrived_at, self.lock_wait.wanted_at))
            found["queue_wait"] -= found["lock_wait"]
        if self.taken_at is not None:
            found["transaction"] = (ended_at if self.decided_at is None else self.decided_at) - self.taken_at
        return found


class PendingOutcome(asyncio.Future[ClaimOutcome]):
    """The answer to a claim, to come.

    `stages` is set when it comes. `mark` is for whoever watches from outside: what it wants to find on the claim when
    that is decided. There is one of these for each claim, so it has no more than it must: neither is set before it is
    used, and `getattr` has to be asked for them.
    """

    __slots__ = ("mark", "stages")
    mark: object
    stages: Stages

    def follow(self, work: Coroutine[Any, Any, ClaimOutcome]) -> None:
        """Become what this work comes to, in a task of its own. To cancel one of the two is to cancel the other."""
        task = asyncio.ensure_future(work)

        def ended(_: object) -> None:
            if task.cancelled():
                self.cancel()
            elif (error := task.exception()) is not None:
                if not self.done():
                    self.set_exception(error)
            elif not self.done():
                self.set_result(task.result())

        task.add_done_callback(ended)
        self.add_done_callback(lambda _: task.cancel())


class Claims(Protocol):
    """Where claims are made."""

    def claim(self, coupon_name: str, user_id: str, options: ClaimOptions | None = None) -> PendingOutcome:
        """Claim one unit of a coupon for a user; `options` is what is asked for beyond that.

        To cancel the answer does not cancel the claim half-way: it completes, or it never was.

        Returns:
            The answer to come: an outcome; a `LockBusyError`, if nothing was decided within the time that a claim may
            wait for the lock; or an `UnavailableError`, if PostgreSQL or a majority of the masters does not answer, or
            the service is full.
        """
        ...

    async def drain(self) -> None:
        """Finish every claim that was accepted and refuse new ones with `UnavailableError`."""
        ...


class AnyClaims(Claims, Protocol):
    """Where claims are made that may leave open of which coupon."""

    def claim_first(self, coupon_type: str | None, user_id: str, options: ClaimOptions | None = None) -> PendingOutcome:
        """Claim one unit of the oldest coupon that has one, of this type or of any: see `Claims.claim`."""
        ...


class Strategy(Claims, Protocol):
    """One way to admit claims. Every implementation passes `tests/behaviour`."""

    name: StrategyName
