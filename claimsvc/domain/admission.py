"""What is decided of claims whose coupon has rules, or that ask for more than a unit. It reads and writes nothing."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from claimsvc.domain import (
    AlreadyClaimed,
    Attempt,
    Campaign,
    Claim,
    Claimed,
    ClaimOptions,
    ClaimOutcome,
    ClaimState,
    Ended,
    HoldContinued,
    IdempotencyKey,
    KeyReused,
    ListKind,
    NotEligible,
    NotStarted,
    Outcome,
    Paused,
    Reason,
    ReasonCode,
    Replayed,
    SoldOut,
    UnknownCoupon,
)


@dataclass(frozen=True, slots=True)
class OwnClaim:
    """A claim that its user has now; `held_until` is None if it is confirmed, and `code` if its coupon has none."""

    id: str
    slot: int
    claimed_at: datetime
    held_until: datetime | None
    code: str | None = None


@dataclass(frozen=True, slots=True)
class CouponFacts:
    """A coupon at the moment `now`. `is_settled` says that no unit is about to come back of a hold that is over.

    Where `has_codes`, each unit goes with one of `free_codes`: as many as are asked for, or all that there are.
    """

    remaining_amount: int
    now: datetime
    campaign: Campaign
    is_settled: bool = True
    has_codes: bool = False
    free_codes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class AnswerRecord:
    """What was answered under a key, to which request."""

    fingerprint: bytes
    answer: Outcome
    request_id: str


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is asked about: coupons by name, claims by coupon and user, answers by caller and key.

    `listed` has a coupon, a user and the kind of a list in force that has the user; `of_others` a coupon that is named
    in rules, and a user with a claim of it.
    """

    coupons: Mapping[str, CouponFacts]
    claims: Mapping[tuple[str, str], Sequence[OwnClaim]] = field(default_factory=dict)
    answers: Mapping[tuple[str, str], AnswerRecord] = field(default_factory=dict)
    listed: Collection[tuple[str, str, ListKind]] = frozenset()
    of_others: Collection[tuple[str, str]] = frozenset()


@dataclass(frozen=True, slots=True)
class Given:
    """A unit that is given, in which of the user's slots, and with which code."""

    claim: Claim
    slot: int
    code: str | None = None


@dataclass(slots=True)
class BatchEffects:
    """What comes of attempts, in their order, and what has to be written for it to be true."""

    outcomes: list[ClaimOutcome] = field(default_factory=list)
    given: list[Given] = field(default_factory=list)
    confirmed: list[Claim] = field(default_factory=list)
    kept: list[tuple[IdempotencyKey, ClaimOutcome]] = field(default_factory=list)

    @property
    def changes_nothing(self) -> bool:
        """Whether there is nothing to write."""
        return not (self.given or self.confirmed or self.kept)


def decide(facts: Facts, attempts: Sequence[Attempt], *, in_doubt: bool = False) -> BatchEffects:
    """Decide the attempts in their order, each as if those before it were written already."""
    batch = BatchDecision(facts, in_doubt)
    for attempt in attempts:
        batch.decisions.outcomes.append(batch.answer(attempt))
    return batch.decisions


def obstacles(facts: Facts, attempt: Attempt) -> list[ClaimOutcome]:
    """Everything in the way of one attempt; `decide` tells the first of it, and gives a unit if there is none."""
    return BatchDecision(facts, in_doubt=False).obstacles(attempt)


_GIVEN = (Claimed, AlreadyClaimed, HoldContinued)


class BatchDecision:
    def __init__(self, facts: Facts, in_doubt: bool) -> None:
        self.decisions = BatchEffects()
        self._facts = facts
        self._coupons = facts.coupons
        self._left = {name: _left(coupon) for name, coupon in facts.coupons.items()}
        self._codes = {name: iter(coupon.free_codes) for name, coupon in facts.coupons.items()}
        self._claims = {holder: list(claims) for holder, claims in facts.claims.items()}
        self._answers = dict(facts.answers)
        self._in_doubt = in_doubt

    def answer(self, attempt: Attempt) -> ClaimOutcome:
        if attempt.options is None or (once := attempt.options.once) is None:
            return self._decide(attempt)
        stored = self._answers.get((once.caller, once.key))
        if stored is None:
            outcome = self._decide(attempt)
            if not (attempt.options.is_final or isinstance(outcome, _GIVEN)):
                return outcome
            self.decisions.kept.append((once, outcome))
            self._answers[once.caller, once.key] = AnswerRecord(once.fingerprint, outcome, once.request_id)
            return outcome
        told: ClaimOutcome = replay(stored, once, self._in_doubt)
        return told

    def _decide(self, attempt: Attempt) -> ClaimOutcome:
        coupon = self._coupons.get(attempt.coupon_name)
        if coupon is None:
            return UnknownCoupon()
        own = self._claims.setdefault((attempt.coupon_name, attempt.user_id), [])
        for each in own:
            if each.id == attempt.claim_id:
                return Claimed(_claim(attempt, each))
        continued = self._continued(attempt, own)
        if continued is not None:
            return continued
        refused = next(self._refusals(attempt, own, coupon), None)
        return refused if refused is not None else self._given(attempt, own, coupon)

    def obstacles(self, attempt: Attempt) -> list[ClaimOutcome]:
        coupon = self._coupons.get(attempt.coupon_name)
        if coupon is None:
            return [UnknownCoupon()]
        own = self._claims.setdefault((attempt.coupon_name, attempt.user_id), [])
        if any(each.held_until is not None for each in own):
            return []  # it is theirs to go on with
        found = list(self._refusals(attempt, own, coupon))
        # A unit that is about to come back is there for whoever claims, because that brings it back.
        return [each for each in found if coupon.is_settled or not isinstance(each, SoldOut)]

    def _refusals(self, attempt: Attempt, own: Sequence[OwnClaim], coupon: CouponFacts) -> Iterator[ClaimOutcome]:
        if len(own) >= coupon.campaign.per_user_limit:
            yield AlreadyClaimed(_claim(attempt, max(own, key=lambda each: each.claimed_at)))
        yield from _refused_by_time(coupon)
        reasons = tuple(self._ineligible(attempt, coupon.campaign))
        if reasons:
            yield NotEligible(reasons)
        if not self._left[attempt.coupon_name]:
            yield SoldOut()

    def _ineligible(self, attempt: Attempt, campaign: Campaign) -> Iterator[Reason]:
        name, user_id = attempt.coupon_name, attempt.user_id
        if campaign.has_allow_list and (name, user_id, ListKind.ALLOW) not in self._facts.listed:
            yield Reason(ReasonCode.NOT_LISTED)
        if campaign.has_deny_list and (name, user_id, ListKind.DENY) in self._facts.listed:
            yield Reason(ReasonCode.DENIED)
        if campaign.rules is not None:
            options = attempt.options or ClaimOptions()
            yield from campaign.rules.broken(
                options.attributes, options.token, lambda other: self._holds(other, user_id)
            )

    def _holds(self, coupon_name: str, user_id: str) -> bool:
        """Whether they have a claim of it, be it one that was given in this line."""
        holder = coupon_name, user_id
        return holder in self._facts.of_others or bool(self._claims.get(holder))

    def _continued(self, attempt: Attempt, own: list[OwnClaim]) -> ClaimOutcome | None:
        """What becomes of the user's hold: asked for again it goes on, and asked for as a claim it is confirmed."""
        for place, each in enumerate(own):
            if each.held_until is None:
                continue
            if attempt.options is None or attempt.options.hold_seconds is None:
                own[place] = each = replace(each, held_until=None)
                self.decisions.confirmed.append(_claim(attempt, each))
            return HoldContinued(_claim(attempt, each))
        return None

    def _given(self, attempt: Attempt, own: list[OwnClaim], coupon: CouponFacts) -> ClaimOutcome:
        self._left[attempt.coupon_name] -= 1
        taken = {each.slot for each in own}
        slot = next(slot for slot in range(1, len(taken) + 2) if slot not in taken)
        hold_seconds = attempt.options.hold_seconds if attempt.options is not None else None
        held_until = None if hold_seconds is None else coupon.now + timedelta(seconds=hold_seconds)
        code = next(self._codes[attempt.coupon_name]) if coupon.has_codes else None
        made = OwnClaim(attempt.claim_id, slot, coupon.now, held_until, code)
        own.append(made)
        claim = _claim(attempt, made)
        self.decisions.given.append(Given(claim, slot, code))
        return Claimed(claim)


def replay(stored: AnswerRecord, once: IdempotencyKey, in_doubt: bool) -> Any:
    """What a request is told under whose key an answer is kept; `in_doubt` as of `storage.transactions.decided`."""
    if stored.fingerprint != once.fingerprint:
        return KeyReused()
    # The request's own answer, where the end of its transaction was in doubt. The id alone does not tell: whoever
    # sends a request again may keep it.
    is_its_own = in_doubt and stored.request_id == once.request_id
    return stored.answer if is_its_own else Replayed(stored.answer, stored.request_id)


def _left(coupon: CouponFacts) -> int:
    return min(coupon.remaining_amount, len(coupon.free_codes)) if coupon.has_codes else coupon.remaining_amount


def _refused_by_time(coupon: CouponFacts) -> Iterator[ClaimOutcome]:
    campaign = coupon.campaign
    if campaign.archived_at is not None or (campaign.ends_at is not None and campaign.ends_at <= coupon.now):
        yield Ended()
    if campaign.paused:
        yield Paused()
    if campaign.starts_at is not None and coupon.now < campaign.starts_at:
        yield NotStarted(campaign.starts_at, (campaign.starts_at - coupon.now).total_seconds())


def _claim(attempt: Attempt, own: OwnClaim) -> Claim:
    is_held = own.held_until is not None
    return Claim(
        own.id,
        attempt.coupon_name,
        attempt.user_id,
        ClaimState.HELD if is_held else ClaimState.ACTIVE,
        own.claimed_at,
        expires_at=own.held_until,
        # Not before it is its user's for good: so the code of a hold that is over was seen by nobody.
        code=None if is_held else own.code,
    )
