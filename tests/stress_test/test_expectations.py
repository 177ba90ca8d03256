"""Every expectation of the stress test holds for an honest history and names each way of breaking it."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from stress_test.expectations import HISTORY_EXPECTATIONS, STATE_EXPECTATIONS, judge
from stress_test.history import (
    ALREADY_CLAIMED,
    CLAIMED,
    CLAIMED_UNREADABLY,
    SOLD_OUT,
    Attempt,
    ClaimSeen,
    CouponPlan,
    CouponState,
    History,
)

COUPON = "flash-sale-1"
STOCK = 2
OPENING = datetime(2026, 1, 1, tzinfo=UTC)


def a_claim(user: str, second: int = 0, claim_id: str | None = None) -> ClaimSeen:
    return ClaimSeen(claim_id or f"id-{user}", COUPON, user, OPENING + timedelta(seconds=second))


def attempt(
    user: str, outcome: str, claim: ClaimSeen | None = None, started: float = 0.0, finished: float = 1.0
) -> Attempt:
    return Attempt(user, COUPON, started, finished, outcome, claim)


ANN, BOB = a_claim("ann", 1), a_claim("bob", 2)
WON = (attempt("ann", CLAIMED, ANN), attempt("bob", CLAIMED, BOB))
REFUSED = attempt("cy", SOLD_OUT)


def a_history(*attempts: Attempt, expected: Mapping[str, int] | None = None, amount: int = STOCK) -> History:
    return History(CouponPlan(COUPON, amount, expected), attempts)


def a_state(*claims: ClaimSeen, remaining: int | None = None, amount: int = STOCK) -> CouponState:
    return CouponState(
        amount=amount,
        remaining_amount=amount - len(claims) if remaining is None else remaining,
        claimed_by=tuple(claim.user_id for claim in claims),
        claims=claims,
        claims_by_id={claim.id: claim for claim in claims},
    )


HONEST = a_history(*WON, REFUSED, expected={CLAIMED: 2, SOLD_OUT: 1})
HONEST_STATE = a_state(ANN, BOB)


def violated(history: History, state: CouponState | None) -> dict[str, str]:
    return {violation.expectation: violation.sentence for violation in judge(history, state)}


def test_an_honest_history_violates_nothing() -> None:
    assert judge(HONEST, HONEST_STATE) == []


def test_every_expectation_is_shown_to_detect_something() -> None:
    names = {expectation.__name__.replace("_", "-") for expectation in HISTORY_EXPECTATIONS}
    names |= {expectation.__name__.replace("_", "-") for expectation in STATE_EXPECTATIONS}
    assert names == {case.values[0] for case in BROKEN}


BROKEN = [
    pytest.param(
        "exact-outcomes",
        a_history(*WON, REFUSED, attempt("di", SOLD_OUT), expected={CLAIMED: 2, SOLD_OUT: 1}),
        HONEST_STATE,
        "expected 2 x 201, 1 x 409 sold-out; got 2 x 201, 2 x 409 sold-out",
        id="one refusal too many",
    ),
    pytest.param(
        "exact-outcomes",
        a_history(*WON, attempt("cy", "503 lock-busy"), expected={CLAIMED: 2, SOLD_OUT: 1}),
        HONEST_STATE,
        "1 x 503 lock-busy",
        id="busy instead of sold out",
    ),
    pytest.param(
        "only-contract-answers",
        a_history(*WON, attempt("cy", "409 no-luck")),
        HONEST_STATE,
        "answers outside the contract: 1 x 409 no-luck",
        id="a 409 of another type",
    ),
    pytest.param(
        "only-contract-answers",
        a_history(WON[0], attempt("bob", CLAIMED_UNREADABLY)),
        HONEST_STATE,
        "1 x 201 unreadable",
        id="a 201 without a claim",
    ),
    pytest.param(
        "one-success-per-user",
        a_history(WON[0], attempt("ann", CLAIMED, a_claim("ann", 2, "id-2"))),
        None,
        "users answered 201 more than once (1): ann",
        id="a double winner",
    ),
    pytest.param(
        "no-more-successes-than-stock",
        a_history(*WON, attempt("cy", CLAIMED, a_claim("cy", 3))),
        None,
        "oversold: 3 claims were answered 201 on a stock of 2",
        id="oversold answers",
    ),
    pytest.param(
        "answers-name-their-asker",
        a_history(attempt("ann", CLAIMED, BOB), WON[1]),
        None,
        "asked by: ann",
        id="somebody else's claim",
    ),
    pytest.param(
        "already-claimed-was-true",
        a_history(*WON, attempt("cy", ALREADY_CLAIMED, a_claim("cy"))),
        None,
        "without the user's own claim behind them (1): cy",
        id="already claimed by nobody",
    ),
    pytest.param(
        "already-claimed-was-true",
        a_history(*WON, attempt("ann", ALREADY_CLAIMED, a_claim("ann", 1, "id-other"))),
        None,
        "ann",
        id="already claimed with another claim",
    ),
    pytest.param(
        "already-claimed-was-true",
        a_history(*WON, attempt("ann", ALREADY_CLAIMED)),
        None,
        "ann",
        id="already claimed without the claim",
    ),
    pytest.param(
        "already-claimed-was-true",
        a_history(attempt("ann", ALREADY_CLAIMED, ANN), attempt("ann", CLAIMED, ANN, 1.5, 2.0)),
        None,
        "ann",
        id="already claimed before the claim began",
    ),
    pytest.param(
        "sold-out-was-possible",
        a_history(WON[0], REFUSED, attempt("bob", CLAIMED, BOB, 1.5, 2.0)),
        HONEST_STATE,
        "before the stock can have been gone (1): cy",
        id="sold out too early",
    ),
    pytest.param(
        "stock-adds-up",
        HONEST,
        a_state(ANN, BOB, remaining=1),
        "remaining_amount is 1; 2 less 2 recorded claims is 0",
        id="the counter differs from the claims",
    ),
    pytest.param(
        "stock-adds-up",
        HONEST,
        a_state(ANN, BOB, a_claim("cy", 3), remaining=-1),
        "oversold: remaining_amount is -1",
        id="oversold rows",
    ),
    pytest.param(
        "stock-adds-up",
        HONEST,
        a_state(ANN, BOB, amount=3),
        "created with an amount of 2, read back with 3",
        id="another amount",
    ),
    pytest.param(
        "nothing-undersold",
        a_history(WON[0], attempt("bob", SOLD_OUT), REFUSED),
        a_state(ANN),
        "undersold: claims recorded: 1, possible: 2",
        id="undersold",
    ),
    pytest.param(
        "sold-out-was-true",
        a_history(WON[0], REFUSED),
        a_state(ANN),
        "sold-out answers: 1, yet 1 of 2 units are left",
        id="sold out with stock left",
    ),
    pytest.param(
        "nothing-lost",
        HONEST,
        a_state(ANN),
        "lost: claims answered 201 that cannot be read back (1), of: bob",
        id="a claim that is not in the list",
    ),
    pytest.param(
        "nothing-lost",
        HONEST,
        replace(HONEST_STATE, claims_by_id={"id-ann": None}),
        "of: ann",
        id="a claim that is not found by its id",
    ),
    pytest.param(
        "nothing-lost",
        HONEST,
        a_state(replace(ANN, user_id="bob"), replace(BOB, user_id="ann")),
        "read back (2)",
        id="claims with their users exchanged",
    ),
    pytest.param(
        "no-phantoms",
        a_history(WON[0], amount=3),
        a_state(ANN, a_claim("eve", 2), amount=3),
        "of users who sent none or were refused (1): eve",
        id="a user who never asked",
    ),
    pytest.param(
        "no-phantoms",
        HONEST,
        a_state(ANN, BOB, a_claim("cy", 3)),
        "cy",
        id="a refused user",
    ),
    pytest.param(
        "one-claim-per-user",
        HONEST,
        a_state(ANN, a_claim("ann", 2, "id-2")),
        "users with more than one claim recorded (1): ann",
        id="two claims of one user",
    ),
    pytest.param(
        "claimed-by-is-the-winners",
        HONEST,
        replace(HONEST_STATE, claimed_by=("ann",)),
        "claimed_by holds 1 users where 2 winners are expected, differing in bob",
        id="a winner left out",
    ),
    pytest.param(
        "claimed-by-is-the-winners",
        HONEST,
        replace(HONEST_STATE, claimed_by=("bob", "ann")),
        "not in the order of claimed_at",
        id="newest first",
    ),
]


@pytest.mark.parametrize(("expectation", "history", "state", "words"), BROKEN)
def test_a_broken_promise_is_named(expectation: str, history: History, state: CouponState | None, words: str) -> None:
    assert words in violated(history, state).get(expectation, "no violation")


@pytest.mark.parametrize("outcome", ["503 unavailable", "500", "no-answer:timeout", "no-answer:reset"])
@pytest.mark.parametrize("recorded", [True, False])
def test_a_claim_without_a_definite_answer_may_be_recorded_or_not(outcome: str, recorded: bool) -> None:
    history = a_history(WON[0], attempt("bob", outcome))
    assert violated(history, HONEST_STATE if recorded else a_state(ANN)) == {}


def test_claims_of_one_moment_may_be_shown_in_any_order() -> None:
    ann, bob = a_claim("ann", 1), a_claim("bob", 1)
    history = a_history(attempt("ann", CLAIMED, ann), attempt("bob", CLAIMED, bob))
    assert violated(history, replace(a_state(ann, bob), claimed_by=("bob", "ann"))) == {}


def test_claimed_by_is_compared_up_to_the_thousand_of_the_contract() -> None:
    claims = [a_claim(f"user-{number:04}", number) for number in range(1001)]
    history = a_history(*(attempt(claim.user_id, CLAIMED, claim) for claim in claims), amount=1001)
    state = a_state(*claims, amount=1001)
    assert violated(history, replace(state, claimed_by=state.claimed_by[:1000])) == {}
    assert "order" in violated(history, replace(state, claimed_by=state.claimed_by[1:]))["claimed-by-is-the-winners"]


def test_long_lists_of_users_are_cut_short_in_a_sentence() -> None:
    history = a_history(*(attempt(f"user-{number}", CLAIMED, ANN) for number in range(9)), amount=9)
    sentence = violated(history, None)["answers-name-their-asker"]
    assert sentence.endswith("user-0, user-1, user-2, user-3, user-4 and 4 more")
