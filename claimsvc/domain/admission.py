"""The decision core of the full path, for coupons with terms and for claims with options.

Pure: it takes facts and attempts, and returns outcomes and what to write. It reads and writes nothing.
"""

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
    CodeTerms,
    Ended,
    HoldContinued,
    IdempotencyKey,
    KeyReused,
    LeaseLost,
    ListKind,
    NotEligible,
    NotStarted,
    Outcome,
    Paused,
    Reason,
    ReasonCode,
    Replayed,
    SoldOut,
    TicketLease,
    TooManyClaims,
    UnknownCoupon,
    WaitsForUnits,
)
from claimsvc.domain.outcomes import is_stored


@dataclass(frozen=True, slots=True)
class OwnClaim:
    """An active claim of a user.

    Args:
        id: a UUID in its usual text form.
        slot: which of the user's units of the coupon it is, from 1.
        held_until: when the hold expires; None if the claim is confirmed.
        code: None if the coupon has no codes.
        terms: those of the code; None if it has none of its own.
    """

    id: str
    slot: int
    claimed_at: datetime
    held_until: datetime | None
    code: str | None = None
    terms: CodeTerms | None = None


@dataclass(frozen=True, slots=True)
class CouponFacts:
    """A coupon at one moment.

    Args:
        remaining_amount: units that can be claimed.
        now: the database's time.
        campaign: the terms.
        is_settled: false if a hold has expired and its unit was not returned yet.
        has_codes: whether each unit comes with a code.
        free_codes: one code for each attempt, or all that are left if there are fewer.
        terms_of_codes: the terms of those of them that have terms of their own, by code.
        code_types: the types that codes of the coupon have of their own.
        version: of the terms; None if the coupon has none.
        had_higher_limit: whether users may have units in higher slots and none in the first.
    """

    remaining_amount: int
    now: datetime
    campaign: Campaign
    is_settled: bool = True
    has_codes: bool = False
    free_codes: Sequence[str] = ()
    terms_of_codes: Mapping[str, CodeTerms] = field(default_factory=dict)
    code_types: Sequence[str] = ()
    version: str | None = None
    had_higher_limit: bool = False

    @property
    def counted_types(self) -> tuple[str | None, ...]:
        """The types under which its codes are counted."""
        return self.campaign.type, *self.code_types


@dataclass(frozen=True, slots=True)
class AnswerRecord:
    """The stored answer to an idempotency key, and the request that got it."""

    fingerprint: bytes
    answer: Outcome
    request_id: str


@dataclass(frozen=True, slots=True)
class TicketFacts:
    """A ticket at one moment.

    Args:
        is_started: whether its claim is still to be made.
        lease: the token of its last lease.
        claim_id: the claim that it has ended with.
        refusal: the `ClaimOutcome` that it has ended with.
    """

    is_started: bool
    lease: str | None
    claim_id: str | None = None
    refusal: Any = None


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that `decide` needs to know.

    Args:
        coupons: by name.
        claims: active claims, by coupon and user.
        answers: stored answers, by caller and key.
        listed: coupon, user and kind of each active list that contains the user.
        other_claims: coupon and user of each active claim of a coupon that eligibility rules name.
        ended_claims: how many claims of a coupon by a user have ended, by coupon and user; none where it is left out.
        tickets: those that attempts are made for, by id; None if they were not read.
    """

    coupons: Mapping[str, CouponFacts]
    claims: Mapping[tuple[str, str], Sequence[OwnClaim]] = field(default_factory=dict)
    answers: Mapping[tuple[str, str], AnswerRecord] = field(default_factory=dict)
    listed: Collection[tuple[str, str, ListKind]] = frozenset()
    other_claims: Collection[tuple[str, str]] = frozenset()
    ended_claims: Mapping[tuple[str, str], int] = field(default_factory=dict)
    tickets: Mapping[str, TicketFacts] | None = None


@dataclass(frozen=True, slots=True)
class Given:
    """A unit to give: the claim, the user's slot, and the code, if the coupon has codes."""

    claim: Claim
    slot: int
    code: str | None = None


@dataclass(slots=True)
class BatchEffects:
    """What a batch of attempts results in, and what must be written.

    Args:
        outcomes: one for each attempt, in their order.
        given: units to give.
        confirmed: held claims to confirm.
        answers: answers to store under their idempotency keys.
        ticket_ends: tickets that end with the outcomes of their claims: the coupon, the lease, and the outcome.
    """

    outcomes: list[ClaimOutcome] = field(default_factory=list)
    given: list[Given] = field(default_factory=list)
    confirmed: list[Claim] = field(default_factory=list)
    answers: list[tuple[IdempotencyKey, ClaimOutcome]] = field(default_factory=list)
    ticket_ends: list[tuple[str, TicketLease, ClaimOutcome]] = field(default_factory=list)

    @property
    def changes_nothing(self) -> bool:
        """Whether there is nothing to write."""
        return not (self.given or self.confirmed or self.answers or self.ticket_ends)


def decide(facts: Facts, attempts: Sequence[Attempt], *, in_doubt: bool = False) -> BatchEffects:
    """Decide the attempts in their order, each as if those before it were already written.

    Args:
        facts: what was read about the coupons and users of the attempts.
        attempts: of one coupon or several.
        in_doubt: an earlier commit of the same attempts may have succeeded.
    """
    batch = _Batch(facts, in_doubt)
    for attempt in attempts:
        batch.effects.outcomes.append(batch.answer(attempt))
    return batch.effects


def obstacles(facts: Facts, attempt: Attempt) -> list[ClaimOutcome]:
    """Return every refusal that applies to an attempt; `decide` returns the first, or gives a unit if there is none."""
    return _Batch(facts, in_doubt=False).obstacles(attempt)


_GIVEN = (Claimed, AlreadyClaimed, HoldContinued)
# Such a refusal is no end: the ticket is tried again when it is over.
_PASSING = (Paused, NotStarted)


class _Batch:
    """The state of one batch: what is left after the attempts decided so far, and their effects."""

    def __init__(self, facts: Facts, in_doubt: bool) -> None:
        self.effects = BatchEffects()
        self._facts = facts
        self._coupons = facts.coupons
        self._left = {name: _left(coupon) for name, coupon in facts.coupons.items()}
        self._codes = {name: iter(coupon.free_codes) for name, coupon in facts.coupons.items()}
        self._claims = {holder: list(claims) for holder, claims in facts.claims.items()}
        self._answers = dict(facts.answers)
        self._ended_leases: set[str] = set()
        self._in_doubt = in_doubt

    def answer(self, attempt: Attempt) -> ClaimOutcome:
        lease = attempt.options.ticket if attempt.options is not None else None
        if lease is None:
            return self._answer(attempt)
        if self._facts.tickets is not None:
            ticket = self._facts.tickets.get(lease.ticket_id)
            if ticket is None or ticket.lease != lease.token or lease.token in self._ended_leases:
                return LeaseLost()
            if not ticket.is_started:
                return self._ended(attempt, ticket)
        outcome = self._answer(attempt)
        if isinstance(outcome, SoldOut) and self._has_waiting_list(attempt):
            return WaitsForUnits()
        if not isinstance(outcome, _PASSING):
            self._ended_leases.add(lease.token)
            self.effects.ticket_ends.append((attempt.coupon_name, lease, outcome))
        return outcome

    def _has_waiting_list(self, attempt: Attempt) -> bool:
        coupon = self._coupons.get(attempt.coupon_name)
        return coupon is not None and coupon.campaign.waiting_list_seconds is not None

    def _ended(self, attempt: Attempt, ticket: TicketFacts) -> ClaimOutcome:
        """Return what a ticket has ended with under this lease: by this attempt, whose commit was in doubt."""
        own = self._claims.get((attempt.coupon_name, attempt.user_id), ())
        claimed = [Claimed(_claim(attempt, each)) for each in own if each.id == ticket.claim_id]
        refusal: ClaimOutcome = LeaseLost() if ticket.refusal is None else ticket.refusal
        return claimed[0] if claimed else refusal

    def _answer(self, attempt: Attempt) -> ClaimOutcome:
        if attempt.options is None or (key := attempt.options.idempotency_key) is None:
            return self._outcome_of(attempt)
        stored = self._answers.get((key.caller, key.key))
        if stored is None:
            outcome = self._outcome_of(attempt)
            is_answer = attempt.options.is_final or isinstance(outcome, _GIVEN)
            if not (is_answer and is_stored(outcome, keeps_all=key.keeps_all)):
                return outcome
            self.effects.answers.append((key, outcome))
            self._answers[key.caller, key.key] = AnswerRecord(key.fingerprint, outcome, key.request_id)
            return outcome
        answer: ClaimOutcome = replay(stored, key, self._in_doubt)
        return answer

    def _outcome_of(self, attempt: Attempt) -> ClaimOutcome:
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
            return []  # a claim would confirm the hold
        found = list(self._refusals(attempt, own, coupon))
        # A claim first returns the units of expired holds, so it would find one.
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
        ended = self._facts.ended_claims.get((attempt.coupon_name, attempt.user_id), 0)
        if len(own) + ended >= coupon.campaign.most_claims:
            yield TooManyClaims()

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
        """Whether the user has an active claim of the coupon, including one given earlier in this batch."""
        holder = coupon_name, user_id
        return holder in self._facts.other_claims or bool(self._claims.get(holder))

    def _continued(self, attempt: Attempt, own: list[OwnClaim]) -> ClaimOutcome | None:
        """Continue the user's hold, if there is one: another hold changes nothing, a claim confirms it."""
        for place, each in enumerate(own):
            if each.held_until is None:
                continue
            if attempt.options is None or attempt.options.hold_seconds is None:
                own[place] = each = replace(each, held_until=None)
                self.effects.confirmed.append(_claim(attempt, each))
            return HoldContinued(_claim(attempt, each))
        return None

    def _given(self, attempt: Attempt, own: list[OwnClaim], coupon: CouponFacts) -> ClaimOutcome:
        self._left[attempt.coupon_name] -= 1
        taken = {each.slot for each in own}
        slot = next(slot for slot in range(1, len(taken) + 2) if slot not in taken)
        hold_seconds = attempt.options.hold_seconds if attempt.options is not None else None
        held_until = None if hold_seconds is None else coupon.now + timedelta(seconds=hold_seconds)
        code = next(self._codes[attempt.coupon_name]) if coupon.has_codes else None
        terms = coupon.terms_of_codes.get(code) if code is not None else None
        made = OwnClaim(attempt.claim_id, slot, coupon.now, held_until, code, terms)
        own.append(made)
        claim = _claim(attempt, made)
        self.effects.given.append(Given(claim, slot, code))
        return Claimed(claim)


def replay(stored: AnswerRecord, idempotency_key: IdempotencyKey, in_doubt: bool) -> Any:
    """Return the answer to a request whose idempotency key has a stored answer.

    Args:
        stored: the stored answer.
        idempotency_key: the request's key.
        in_doubt: an earlier commit of this request may have succeeded; see `run_transaction`.
    """
    if not idempotency_key.is_of(stored.fingerprint):
        return KeyReused()
    # After a commit in doubt, the stored answer may be this request's own. The request id alone does not prove it,
    # because a client may send a retry with the same id.
    is_its_own = in_doubt and stored.request_id == idempotency_key.request_id
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
        # Not shown while the claim is held: the code of an expired hold was never seen, so it can be given again.
        code=None if is_held else own.code,
        terms=None if is_held else own.terms,
    )
