"""The expectations of every coupon: pure functions that return a sentence about a violation, or None.

`HISTORY_EXPECTATIONS` check only the answers; `STATE_EXPECTATIONS` compare them with what was read back. Claims without
a definite answer (`history.is_unknown`) may or may not be in the read-back. No scenario cancels claims, so stock only
decreases. The names of the functions appear in the report and the JSON document.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from stress_test.history import (
    ALREADY_CLAIMED,
    CLAIMED,
    CLAIMED_UNREADABLY,
    SOLD_OUT,
    CouponState,
    History,
    is_unknown,
    may_have_won,
)

# The contract's limit of names in `claimed_by`.
CLAIMED_BY_LIMIT = 1000
# Names shown in a sentence.
_NAMES_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Violation:
    """An expectation that did not hold."""

    expectation: str
    coupon_name: str
    sentence: str


def some(names: Iterable[str]) -> str:
    ordered = sorted(set(names))
    shown = ", ".join(ordered[:_NAMES_SHOWN])
    more = len(ordered) - _NAMES_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def outcomes_in_words(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} x {outcome}" for outcome, number in sorted(counts.items()) if number)


# Checks of the answers.


def exact_outcomes(history: History) -> str | None:
    """If the scenario fixes the outcomes, they are exactly those."""
    if history.coupon.expected is None:
        return None
    seen = history.counts()
    expected = Counter(history.coupon.expected)
    if seen == expected:
        return None
    return f"expected {outcomes_in_words(expected)}; got {outcomes_in_words(seen)}"


def only_contract_answers(history: History) -> str | None:
    """Every answer is one that the contract has for a valid claim of an existing coupon."""
    allowed = (CLAIMED, SOLD_OUT, ALREADY_CLAIMED)
    foreign = Counter(
        {
            outcome: number
            for outcome, number in history.counts().items()
            if outcome == CLAIMED_UNREADABLY or not (outcome in allowed or is_unknown(outcome))
        }
    )
    return f"answers outside the contract: {outcomes_in_words(foreign)}" if foreign else None


def one_success_per_user(history: History) -> str | None:
    """No user gets 201 twice."""
    winners = Counter(attempt.user_id for attempt in history.with_outcome(CLAIMED))
    doubled = [user for user, number in winners.items() if number > 1]
    return f"users answered 201 more than once ({len(doubled)}): {some(doubled)}" if doubled else None


def no_more_successes_than_stock(history: History) -> str | None:
    """No more claims are answered with 201 than the coupon has units."""
    successes = len(history.with_outcome(CLAIMED))
    if successes <= history.coupon.amount:
        return None
    return f"oversold: {successes} claims were answered 201 on a stock of {history.coupon.amount}"


def answers_name_their_asker(history: History) -> str | None:
    """The claim in an answer has the user and the coupon of the request."""
    wrong = [
        attempt.user_id
        for attempt in history.attempts
        if attempt.claim is not None
        and (attempt.claim.user_id, attempt.claim.coupon_name) != (attempt.user_id, attempt.coupon_name)
    ]
    return f"answers with a claim of another user or coupon ({len(wrong)}), asked by: {some(wrong)}" if wrong else None


def already_claimed_was_true(history: History) -> str | None:
    """`already-claimed` contains the user's claim, which an earlier or concurrent request may have won."""
    earliest: dict[str, float] = {}
    ids: dict[str, set[str]] = defaultdict(set)
    for attempt in history.attempts:
        if may_have_won(attempt.outcome):
            start = attempt.started_seconds
            earliest[attempt.user_id] = min(start, earliest.get(attempt.user_id, start))
        if attempt.outcome == CLAIMED and attempt.claim is not None:
            ids[attempt.user_id].add(attempt.claim.id)
    wrong = [
        attempt.user_id
        for attempt in history.with_outcome(ALREADY_CLAIMED)
        if attempt.claim is None
        or earliest.get(attempt.user_id, float("inf")) > attempt.finished_seconds
        or (ids[attempt.user_id] and attempt.claim.id not in ids[attempt.user_id])
    ]
    if not wrong:
        return None
    return f"already-claimed answers without the user's own claim behind them ({len(wrong)}): {some(wrong)}"


def sold_out_was_possible(history: History) -> str | None:
    """Before each `sold-out` was read, at least as many claims that may have won had started as there are units."""
    starts = sorted(a.started_seconds for a in history.attempts if may_have_won(a.outcome))
    early = [
        attempt.user_id
        for attempt in history.with_outcome(SOLD_OUT)
        if bisect_right(starts, attempt.finished_seconds) < history.coupon.amount
    ]
    if not early:
        return None
    return f"sold-out answers before the stock can have been gone ({len(early)}): {some(early)}"


# Comparisons of the answers with what was read back.


def stock_adds_up(history: History, state: CouponState) -> str | None:
    """The amount is that of the request, and `remaining_amount` is the amount less the claims in the list."""
    if state.amount != history.coupon.amount:
        return f"created with an amount of {history.coupon.amount}, read back with {state.amount}"
    left = state.amount - len(state.claims)
    if state.remaining_amount == left and left >= 0:
        return None
    oversold = "oversold: " if left < 0 else ""
    return (
        f"{oversold}remaining_amount is {state.remaining_amount}; "
        f"{state.amount} less {len(state.claims)} recorded claims is {left}"
    )


def nothing_undersold(history: History, state: CouponState) -> str | None:
    """If all answers are definite, as many claims are recorded as there are units, or as users if they are fewer."""
    if any(is_unknown(attempt.outcome) for attempt in history.attempts):
        return None
    possible = min(history.coupon.amount, len({attempt.user_id for attempt in history.attempts}))
    if len(state.claims) >= possible:
        return None
    return f"undersold: claims recorded: {len(state.claims)}, possible: {possible}"


def sold_out_was_true(history: History, state: CouponState) -> str | None:
    """If any claim got `sold-out`, no units are left."""
    refused = len(history.with_outcome(SOLD_OUT))
    if not refused or state.remaining_amount <= 0:
        return None
    left = f"{state.remaining_amount} of {state.amount} units are left"
    return f"sold-out answers: {refused}, yet {left}"


def nothing_lost(history: History, state: CouponState) -> str | None:
    """Every claim that was answered with 201 is in the coupon's list and found by its id, with the same user."""
    listed = {claim.id: claim.user_id for claim in state.claims}
    lost = []
    for attempt in history.with_outcome(CLAIMED):
        if attempt.claim is None:
            continue
        by_id = state.claims_by_id.get(attempt.claim.id, attempt.claim)
        if listed.get(attempt.claim.id) != attempt.user_id or by_id is None or by_id.user_id != attempt.user_id:
            lost.append(attempt.user_id)
    return f"lost: claims answered 201 that cannot be read back ({len(lost)}), of: {some(lost)}" if lost else None


def no_phantoms(history: History, state: CouponState) -> str | None:
    """No claim is recorded for a user who sent none, or whose claims were all definitely refused."""
    candidates = {attempt.user_id for attempt in history.attempts if may_have_won(attempt.outcome)}
    phantoms = [claim.user_id for claim in state.claims if claim.user_id not in candidates]
    if not phantoms:
        return None
    return f"phantom claims, of users who sent none or were refused ({len(phantoms)}): {some(phantoms)}"


def one_claim_per_user(history: History, state: CouponState) -> str | None:
    """No user is in the coupon's list twice."""
    recorded = Counter(claim.user_id for claim in state.claims)
    doubled = [user for user, number in recorded.items() if number > 1]
    return f"users with more than one claim recorded ({len(doubled)}): {some(doubled)}" if doubled else None


def claimed_by_is_the_winners(history: History, state: CouponState) -> str | None:
    """`claimed_by` contains the users of the list, oldest claim first, up to the contract's limit.

    Claims with equal times may be in any order.
    """
    claimed_at = {claim.user_id: claim.claimed_at for claim in state.claims}
    shown = state.claimed_by
    expected_length = min(len(claimed_at), CLAIMED_BY_LIMIT)
    if len(shown) != expected_length or len(set(shown)) != len(shown) or not set(shown) <= claimed_at.keys():
        differing = set(shown) ^ claimed_at.keys() if len(claimed_at) <= CLAIMED_BY_LIMIT else set[str]()
        detail = f", differing in {some(differing)}" if differing else ""
        return f"claimed_by holds {len(shown)} users where {expected_length} winners are expected{detail}"
    moments = [claimed_at[user] for user in shown]
    newest_shown_first = any(earlier > later for earlier, later in pairwise(moments))
    hidden = claimed_at.keys() - set(shown)
    if newest_shown_first or (hidden and min(claimed_at[user] for user in hidden) < moments[-1]):
        return "claimed_by is not in the order of claimed_at, oldest first"
    return None


HistoryExpectation = Callable[[History], str | None]
StateExpectation = Callable[[History, CouponState], str | None]

HISTORY_EXPECTATIONS: Sequence[HistoryExpectation] = (
    exact_outcomes,
    only_contract_answers,
    one_success_per_user,
    no_more_successes_than_stock,
    answers_name_their_asker,
    already_claimed_was_true,
    sold_out_was_possible,
)
STATE_EXPECTATIONS: Sequence[StateExpectation] = (
    stock_adds_up,
    nothing_undersold,
    sold_out_was_true,
    nothing_lost,
    no_phantoms,
    one_claim_per_user,
    claimed_by_is_the_winners,
)


def judge(history: History, state: CouponState | None) -> list[Violation]:
    """Return the expectations that one coupon violates. If `state` is None, only the answers are checked."""
    verdicts = [(expectation.__name__, expectation(history)) for expectation in HISTORY_EXPECTATIONS]
    if state is not None:
        verdicts += [(expectation.__name__, expectation(history, state)) for expectation in STATE_EXPECTATIONS]
    return [
        Violation(name.replace("_", "-"), history.coupon.name, sentence)
        for name, sentence in verdicts
        if sentence is not None
    ]
