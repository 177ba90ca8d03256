"""Making claims, and the pending outcome of each."""

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
    """When waiting for a lock started, and when the lock was acquired: monotonic seconds."""

    wanted_at: float
    had_at: float | None = None


@dataclass(slots=True)
class Stages:
    """When a batch of claims reached each stage: monotonic seconds, None for stages it did not reach."""

    lock_wait: LockWait | None = None
    taken_at: float | None = None
    decided_at: float | None = None

    def seconds(self, arrived_at: float, ended_at: float) -> dict[str, float]:
        """Return the seconds that one claim spent in each stage it reached.

        `queue_wait` is its waiting time without `lock_wait`; `transaction` includes the wait for a connection.

        Args:
            arrived_at: when the claim arrived, in monotonic seconds.
            ended_at: when it was answered.
        """
        taken_at = ended_at if self.taken_at is None else self.taken_at
        found = {"queue_wait": taken_at - arrived_at}
        if self.lock_wait is not None:
            had_at = taken_at if self.lock_wait.had_at is None else self.lock_wait.had_at
            # A claim that arrived later than the wait for the lock started has waited less, or not at all.
            found["lock_wait"] = max(0.0, had_at - max(arrived_at, self.lock_wait.wanted_at))
            found["queue_wait"] -= found["lock_wait"]
        if self.taken_at is not None:
            found["transaction"] = (ended_at if self.decided_at is None else self.decided_at) - self.taken_at
        return found


class PendingOutcome(asyncio.Future[ClaimOutcome]):
    """The future outcome of a claim.

    Attributes:
        stages: set when the claim is decided.
        mark: free for observers, which can attach data to the claim and read it when the claim is decided.

    Both attributes may be unset: there is an object for each claim, so creating one must be cheap.
    """

    __slots__ = ("mark", "stages")
    mark: object
    stages: Stages

    def follow(self, work: Coroutine[Any, Any, ClaimOutcome]) -> None:
        """Run `work` in a task and take over its result. Cancelling one cancels the other."""
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
    """Makes claims."""

    def claim(self, coupon_name: str, user_id: str, options: ClaimOptions | None = None) -> PendingOutcome:
        """Claim one unit of a coupon for a user.

        Cancelling the returned future never leaves a claim half made: it completes, or was never started.

        Args:
            coupon_name: the coupon.
            user_id: the user.
            options: None for a plain claim.

        Returns:
            A future with the outcome. It fails with `LockBusyError` if nothing was decided within the time that a claim
            may wait for the lock, and with `UnavailableError` if PostgreSQL or a majority of the masters does not
            respond, or the service is full.
        """
        ...

    async def drain(self) -> None:
        """Finish all accepted claims, and refuse new ones with `UnavailableError`."""
        ...


class AnyClaims(Claims, Protocol):
    """Makes claims that name a coupon, or a type in its place."""

    def claim_first(self, coupon_type: str | None, user_id: str, options: ClaimOptions | None = None) -> PendingOutcome:
        """Claim one unit of the oldest claimable coupon of a type (None: without a type); see `Claims.claim`."""
        ...


class Strategy(Claims, Protocol):
    """One way to admit claims. Every implementation passes `tests/behaviour`."""

    name: StrategyName
