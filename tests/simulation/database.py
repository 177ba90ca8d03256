"""A PostgreSQL that is simulated: one transaction at a time on a coupon, atomic, and sometimes out of reach.

It keeps the promises of `ports.Storage` and nothing else; that PostgreSQL keeps them is what `tests/postgres` is for.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from claimsvc.domain import (
    PLAIN,
    AlreadyClaimed,
    Attempt,
    Campaign,
    Claim,
    Claimed,
    ClaimOutcome,
    ClaimState,
    Coupon,
    CouponExists,
    SoldOut,
    StrategyName,
    UnknownCoupon,
)
from claimsvc.errors import InvariantViolatedError, UnavailableError
from claimsvc.ports import BatchDecisions, Decision, HandedBatch
from claimsvc.postgres.claiming.fence import handed_outcomes
from tests.simulation.loop import current_process
from tests.simulation.network import Answer, Network
from tests.support.memory_store import MemoryStore

_START = datetime(2026, 1, 1, tzinfo=UTC)
_STARTED_AT = 1000.0
# As long as the real storage may take for one call, all its time-outs together.
_TIMEOUT_SECONDS = 8.0
_ROW_LOCK_TIMEOUT_SECONDS = 2.0
_DAY_SECONDS = 86_400.0

Fenced = tuple[list[Decision], list[BatchDecisions | None]]


@dataclass(frozen=True, slots=True)
class Change:
    """One committed change of a coupon: a claim was made or ended, or the amount has changed (`claim` is None)."""

    at: float
    claim: Claim | None
    remaining_amount: int


class SimulatedDatabase(MemoryStore):
    """`ports.Storage` behind the simulated network.

    Args:
        transaction_seconds: what a transaction takes, about.

    Attributes:
        history: the changes of each coupon.
        decided: how often each claim was decided, and each handed batch.
        deciding: the instances that decide handed batches now.
        withheld: the handed batches that their origins took back.
        misled: the handed batches of which their origins were told that they are decided, when they were not.
    """

    def __init__(self, network: Network, *, transaction_seconds: float) -> None:
        super().__init__()
        self._network = network
        self._seconds = transaction_seconds
        self._row_locked_until: dict[str, float] = defaultdict(float)
        self.down = False
        self.uncertain = False
        self.slow_seconds = 0.0
        self.clock_offset = 0.0
        self.cut_off: set[int] = set()
        self.refused_users: set[str] = set()
        self.fenced: set[tuple[str, str]] = set()
        self.fenced_after: dict[str, str] = {}
        self.slowest_call = 0.0
        self.transactions = 0
        self.history: dict[str, list[Change]] = defaultdict(list)
        self.decided: Counter[str] = Counter()
        self.deciding: Counter[int] = Counter()
        self.withheld: set[str] = set()
        self.misled: list[str] = []

    def heal(self) -> None:
        self.down = self.uncertain = False
        self.slow_seconds = 0.0
        self.cut_off.clear()

    async def create_coupon(
        self, name: str, amount: int, strategy: StrategyName, campaign: Campaign = PLAIN
    ) -> Coupon | CouponExists:
        made = await super().create_coupon(name, amount, strategy, campaign)
        self.fenced_after[name] = first_id_at(self._clock() - _DAY_SECONDS)
        self._note(name, None)
        return made

    async def admit(self, attempts: Sequence[Attempt]) -> list[Decision]:
        decisions, _ = await self.admit_handed(attempts, ())
        return decisions

    async def admit_handed(self, attempts: Sequence[Attempt], batches: Sequence[HandedBatch]) -> Fenced:
        process = current_process()
        self.deciding[process] += bool(batches)
        try:
            return await self.decide_fenced(attempts, batches)
        finally:
            self.deciding[process] -= bool(batches)

    async def decide_fenced(self, attempts: Sequence[Attempt], batches: Sequence[HandedBatch]) -> Fenced:
        def decide() -> Fenced | None:
            return self.decide(attempts, batches, self.fence(batches))

        return await self.committed(attempts, batches, decide)

    async def committed(
        self, attempts: Sequence[Attempt], batches: Sequence[HandedBatch], decide: Callable[[], Fenced | None]
    ) -> Fenced:
        """Decide in one transaction, and again if it is in doubt: then batches are recognized by the fence."""
        again = partial(self._decide_again, attempts, len(batches))
        decided = await self._ask(self.writing(names_of(attempts, batches), decide, again))
        return await self.without_refused(attempts, batches, decided)

    async def without_refused(
        self, attempts: Sequence[Attempt], batches: Sequence[HandedBatch], decided: Fenced | None
    ) -> Fenced:
        """What was decided; if one of the claims is refused, the batches are left to those who handed them over."""
        if decided is None:
            return await self.admit(attempts) if attempts else [], [None] * len(batches)
        return decided

    async def withhold(self, batch: HandedBatch) -> bool:
        def write() -> bool:
            is_withheld = bool(self.fence([batch]))
            if is_withheld:
                self.withheld.add(batch.id)
            elif not self.decided[batch.id] and not self._may_be_forgotten(batch) and batch.id not in self.withheld:
                self.misled.append(batch.id)
            return is_withheld

        withheld: bool = await self._ask(self.writing({batch.coupon_name}, write, write))
        return withheld

    async def recall(self, batch: HandedBatch) -> list[Decision]:
        found: dict[str, Claim] = await self._ask(self._reading(lambda: self._active(batch)))
        looked = await self.look(batch.attempts)
        return [
            Claimed(found[attempt.claim_id]) if attempt.claim_id in found else outcome or _forgotten()
            for attempt, outcome in zip(batch.attempts, looked, strict=True)
        ]

    async def end_claim(self, claim: Claim) -> None:
        """The user gives the unit back."""
        await self._ask(self.writing({claim.coupon_name}, lambda: self._end(claim), lambda: self._end(claim)))

    def restock(self, name: str, units: int) -> None:
        """Somebody raises the amount of a coupon, and that is committed now."""
        if name in self.amounts:
            self.amounts[name] = replace(self.amounts[name], amount=self.amounts[name].amount + units)
            self._note(name, None)

    def purge_fence(self, keep_seconds: float) -> None:
        """Forget the batches that are older than this, each coupon in a transaction that locks its row."""
        until = first_id_at(self._clock() - keep_seconds)
        for name in self.amounts:
            self.writing({name}, partial(self.forget_batches, name, until))(lambda _: None)

    def forget_batches(self, name: str, until: str) -> None:
        """Forget the batches of a coupon whose ids are smaller, and refuse them from now on."""
        self.fenced_after[name] = max(self.fenced_after[name], until)
        self.fenced = {(of, id_) for of, id_ in self.fenced if of != name or id_ >= until}

    def writing(
        self, names: Collection[str], write: Callable[[], object], again: Callable[[], object] | None = None
    ) -> Callable[[Answer], None]:
        """A transaction that locks the rows of these coupons.

        Args:
            again: what the service does where it does not know whether the transaction has committed.
        """

        def arrive(answer: Answer) -> None:
            now = self._network.loop.now
            starts_at = max([now, *(self._row_locked_until[name] for name in names)])
            if self.down or starts_at - now > _ROW_LOCK_TIMEOUT_SECONDS:
                answer(_unavailable())
                return
            ends_in = starts_at - now + self.duration()
            for name in names:
                self._row_locked_until[name] = now + ends_in
            self._network.loop.in_world(ends_in, commit, answer)

        def commit(answer: Answer) -> None:
            if self.down:
                answer(_unavailable())
                return
            self.transactions += 1
            result = write()
            if not self.uncertain or again is None or self._network.chance.random() < 0.4:
                answer(result)
            elif self._network.chance.random() < 0.5:
                answer(_unavailable())
            else:
                self.writing(names, again)(answer)

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
            self._network.loop.in_world(self.duration(), lambda: answer(_unavailable() if self.down else read()))

        return arrive

    async def _ask(self, arrive: Callable[[Answer], None]) -> Any:
        process = current_process()

        def reach(answer: Answer) -> None:
            # Who is cut off in between does not learn whether its transaction has committed.
            if process in self.cut_off:
                answer(_unavailable())
            else:
                arrive(lambda what: answer(_unavailable() if process in self.cut_off else what))

        def took(seconds: float) -> None:
            self.slowest_call = max(self.slowest_call, seconds)

        return await self._network.ask(reach, timeout=_TIMEOUT_SECONDS, late=_unavailable, measured=took)

    def duration(self) -> float:
        """What a transaction takes, drawn anew."""
        chance = self._network.chance
        return self._seconds * (0.5 + chance.random()) + self.slow_seconds * chance.random()

    def after(self, seconds: float, callback: Callable[[], None]) -> None:
        """Go on with a transaction."""
        self._network.loop.in_world(seconds, callback)

    def fence(self, batches: Sequence[HandedBatch]) -> set[str]:
        """Put the fence around batches. Returns the ids of those that this transaction may decide."""
        ours = {each.id for each in batches if self.passes_fence(each)}
        self.fenced |= {(each.coupon_name, each.id) for each in batches if each.id in ours}
        return ours

    def passes_fence(self, batch: HandedBatch) -> bool:
        """Whether nobody has decided a batch yet, as far as anybody remembers."""
        return not self._may_be_forgotten(batch) and (batch.coupon_name, batch.id) not in self.fenced

    def _may_be_forgotten(self, batch: HandedBatch) -> bool:
        return batch.coupon_name not in self.amounts or batch.id <= self.fenced_after[batch.coupon_name]

    def decide(
        self, attempts: Sequence[Attempt], batches: Sequence[HandedBatch], ours: Collection[str]
    ) -> Fenced | None:
        """Decide attempts, and after them those batches that are `ours`. None if that cannot be committed."""
        of_others = [attempt for batch in batches if batch.id in ours for attempt in batch.attempts]
        if batches and any(attempt.user_id in self.refused_users for attempt in [*attempts, *of_others]):
            self.fenced -= {(batch.coupon_name, batch.id) for batch in batches if batch.id in ours}
            return None
        self.decided.update(ours)
        decisions = [self._decide(attempt) for attempt in [*attempts, *of_others]]
        return decisions[: len(attempts)], handed_outcomes(decisions[len(attempts) :], batches, ours)

    def _decide(self, attempt: Attempt) -> Decision:
        if attempt.user_id in self.refused_users:
            return InvariantViolatedError("the database refused a claim that the service's rules admit")
        self.decided[attempt.claim_id] += 1
        seen = self._look_at(attempt)
        if isinstance(seen, AlreadyClaimed) and seen.claim.id == attempt.claim_id:
            return Claimed(seen.claim)
        if seen is not None:
            return seen
        name = attempt.coupon_name
        claim = Claim(attempt.claim_id, name, attempt.user_id, ClaimState.ACTIVE, self._timestamp())
        self.claims_of[name].append(claim)
        self._note(name, claim)
        return Claimed(claim)

    def _decide_again(self, attempts: Sequence[Attempt], batches: int) -> Fenced | UnavailableError:
        """What `decide` is told after a commit in doubt, which has been one: nothing is decided a second time."""
        if any(attempt.claim_id in self.ended for attempt in attempts):
            return _unavailable()
        return [self._decided(attempt) for attempt in attempts], [None] * batches

    def _decided(self, attempt: Attempt) -> Decision:
        seen = self._look_at(attempt)
        if isinstance(seen, AlreadyClaimed) and seen.claim.id == attempt.claim_id:
            return Claimed(seen.claim)
        if seen is None:
            self.decided[attempt.claim_id] -= 1  # nobody was told of the first time
        return seen or self._decide(attempt)

    def _end(self, claim: Claim) -> None:
        if claim in self.claims_of[claim.coupon_name]:
            self.claims_of[claim.coupon_name].remove(claim)
            ended = self.ended[claim.id] = replace(claim, state=ClaimState.CANCELLED, ended_at=claim.claimed_at)
            self._note(claim.coupon_name, ended)

    def _active(self, batch: HandedBatch) -> dict[str, Claim]:
        ids = {attempt.claim_id for attempt in batch.attempts}
        return {claim.id: claim for claim in self.claims_of.get(batch.coupon_name, ()) if claim.id in ids}

    def _look_at(self, attempt: Attempt) -> ClaimOutcome | None:
        coupon = self.amounts.get(attempt.coupon_name)
        if coupon is None:
            return UnknownCoupon()
        claims = self.claims_of[attempt.coupon_name]
        for held in claims:
            if held.user_id == attempt.user_id:
                return AlreadyClaimed(held)
        return SoldOut() if len(claims) >= coupon.amount else None

    def _note(self, name: str, claim: Claim | None) -> None:
        remaining = self.amounts[name].amount - len(self.claims_of[name])
        self.history[name].append(Change(self._network.loop.now, claim, remaining))

    def _clock(self) -> float:
        return self._network.loop.now + self.clock_offset

    def _timestamp(self) -> datetime:
        return _START + timedelta(seconds=self._clock() - _STARTED_AT)


def first_id_at(seconds: float) -> str:
    """The smallest UUID of version 7 of a moment of the simulated clock."""
    milliseconds = int((_START.timestamp() + seconds - _STARTED_AT) * 1000)
    text = f"{milliseconds:012x}"
    return f"{text[:8]}-{text[8:]}-7000-8000-000000000000"


def names_of(attempts: Sequence[Attempt], batches: Sequence[HandedBatch]) -> set[str]:
    """The names of the coupons of attempts and batches."""
    return {attempt.coupon_name for attempt in attempts} | {batch.coupon_name for batch in batches}


def _forgotten() -> UnavailableError:
    return UnavailableError("the claim was not made, or has ended since: repeat it", dependency="claimsvc")


def _unavailable() -> UnavailableError:
    return UnavailableError("PostgreSQL cannot be used at the moment", dependency="postgresql")
