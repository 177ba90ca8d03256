"""A PostgreSQL that is simulated: one transaction at a time on a coupon, atomic, and sometimes out of reach.

It keeps the promises of `ports.Storage` and nothing else; that PostgreSQL keeps them is what `tests/postgres` is for.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from claimsvc.domain import (
    AlreadyClaimed,
    Attempt,
    Claim,
    Claimed,
    ClaimOutcome,
    ClaimState,
    Coupon,
    SoldOut,
    UnknownCoupon,
)
from claimsvc.errors import InvariantViolatedError, UnavailableError
from claimsvc.ports import BatchDecisions, Decision, HandedBatch
from tests.simulation.network import Answer, Network
from tests.support.memory_store import MemoryStore

_START = datetime(2026, 1, 1, tzinfo=UTC)
# As long as the real storage may take for one call, all its time-outs together.
_TIMEOUT_SECONDS = 8.0
_ROW_LOCK_TIMEOUT_SECONDS = 2.0


class SimulatedDatabase(MemoryStore):
    """`ports.Storage` behind the simulated network.

    Args:
        transaction_seconds: what a transaction takes, about.
    """

    def __init__(self, network: Network, *, transaction_seconds: float) -> None:
        super().__init__()
        self._network = network
        self._seconds = transaction_seconds
        self._row_locked_until: dict[str, float] = defaultdict(float)
        self.down = False
        self.uncertain = False
        self.slow_seconds = 0.0
        self.refused_users: set[str] = set()
        self.fenced: set[tuple[str, str]] = set()
        self.slowest_call = 0.0
        self.transactions = 0

    def heal(self) -> None:
        self.down = self.uncertain = False
        self.slow_seconds = 0.0

    async def admit(self, attempts: Sequence[Attempt]) -> list[Decision]:
        decisions, _ = await self.admit_handed(attempts, ())
        return decisions

    async def admit_handed(
        self, attempts: Sequence[Attempt], batches: Sequence[HandedBatch]
    ) -> tuple[list[Decision], list[BatchDecisions | None]]:
        def decide() -> tuple[list[Decision], list[BatchDecisions | None]]:
            decisions = [self._decide(attempt) for attempt in attempts]
            handed: list[BatchDecisions | None] = []
            for batch in batches:
                ours = self._fence(batch)
                handed.append([self._decide(attempt) for attempt in batch.attempts] if ours else None)
            return decisions, handed

        names = {attempt.coupon_name for attempt in attempts} | {batch.coupon_name for batch in batches}
        decided: tuple[list[Decision], list[BatchDecisions | None]] = await self._ask(self._writing(names, decide))
        return decided

    async def withhold(self, batch: HandedBatch) -> bool:
        withheld: bool = await self._ask(self._writing({batch.coupon_name}, lambda: self._fence(batch)))
        return withheld

    async def recall(self, batch: HandedBatch) -> list[Decision]:
        recalled: list[Decision] = await self._ask(
            self._reading(lambda: [self._recall(attempt) for attempt in batch.attempts])
        )
        return recalled

    def _writing(self, names: set[str], write: Callable[[], object]) -> Callable[[Answer], None]:
        """A transaction that locks the rows of these coupons."""

        def arrive(answer: Answer) -> None:
            now = self._network.loop.now
            starts_at = max([now, *(self._row_locked_until[name] for name in names)])
            if self.down or starts_at - now > _ROW_LOCK_TIMEOUT_SECONDS:
                answer(_unavailable())
                return
            ends_in = starts_at - now + self._duration()
            for name in names:
                self._row_locked_until[name] = now + ends_in
            self._network.loop.in_world(ends_in, commit, answer)

        def commit(answer: Answer) -> None:
            if self.down:
                answer(_unavailable())
                return
            self.transactions += 1
            result = write()
            uncertain = self.uncertain and self._network.chance.random() < 0.5
            answer(_unavailable() if uncertain else result)

        return arrive

    async def look(self, attempts: Sequence[Attempt]) -> list[ClaimOutcome | None]:
        looked: list[ClaimOutcome | None] = await self._ask(
            self._reading(lambda: [self._look_at(attempt) for attempt in attempts])
        )
        return looked

    async def stock(self, names: Sequence[str]) -> list[Coupon]:
        found: list[Coupon] = await self._ask(
            self._reading(lambda: [self._now(name) for name in names if name in self.amounts])
        )
        return found

    def _reading(self, read: Callable[[], object]) -> Callable[[Answer], None]:
        def arrive(answer: Answer) -> None:
            self._network.loop.in_world(self._duration(), lambda: answer(_unavailable() if self.down else read()))

        return arrive

    async def _ask(self, arrive: Callable[[Answer], None]) -> Any:
        asked_at = self._network.loop.now
        try:
            return await self._network.ask(arrive, timeout=_TIMEOUT_SECONDS, late=_unavailable)
        finally:
            self.slowest_call = max(self.slowest_call, self._network.loop.now - asked_at)

    def _duration(self) -> float:
        chance = self._network.chance
        return self._seconds * (0.5 + chance.random()) + self.slow_seconds * chance.random()

    def _fence(self, batch: HandedBatch) -> bool:
        """Put the fence around a batch. Returns False if it was there."""
        is_new = (batch.coupon_name, batch.id) not in self.fenced
        self.fenced.add((batch.coupon_name, batch.id))
        return is_new

    def _recall(self, attempt: Attempt) -> Decision:
        for held in self.claims_of[attempt.coupon_name]:
            if held.id == attempt.claim_id:
                return Claimed(held)
        return self._look_at(attempt) or UnavailableError("it was not made, or has ended", dependency="claimsvc")

    def _decide(self, attempt: Attempt) -> Decision:
        if attempt.user_id in self.refused_users:
            return InvariantViolatedError("the database refused a claim that the service's rules admit")
        seen = self._look_at(attempt)
        if seen is not None:
            return seen
        claims = self.claims_of[attempt.coupon_name]
        claimed_at = _START + timedelta(microseconds=len(claims))
        claims.append(Claim(attempt.claim_id, attempt.coupon_name, attempt.user_id, ClaimState.ACTIVE, claimed_at))
        return Claimed(claims[-1])

    def _look_at(self, attempt: Attempt) -> ClaimOutcome | None:
        coupon = self.amounts.get(attempt.coupon_name)
        if coupon is None:
            return UnknownCoupon()
        claims = self.claims_of[attempt.coupon_name]
        for held in claims:
            if held.user_id == attempt.user_id:
                return AlreadyClaimed(held)
        return SoldOut() if len(claims) >= coupon.amount else None


def _unavailable() -> UnavailableError:
    return UnavailableError("PostgreSQL cannot be used at the moment", dependency="postgresql")
