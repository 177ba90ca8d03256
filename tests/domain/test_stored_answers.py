"""Which answers are kept under an Idempotency-Key: none that tells its client to ask again."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claimsvc.domain import (
    Attempt,
    Campaign,
    Claim,
    Claimed,
    ClaimOptions,
    ClaimOutcome,
    ClaimState,
    CodeNotClaimed,
    Eligibility,
    IdempotencyKey,
    NotStarted,
    Outcome,
    Paused,
    Reason,
    ReasonCode,
    Refusal,
    Replayed,
    SoldOut,
)
from claimsvc.domain.admission import AnswerRecord, CouponFacts, Facts, decide
from claimsvc.domain.outcomes import is_stored, problem_of, rows
from claimsvc.domain.stored_answers import decode, encode

NOW = datetime(2026, 11, 21, tzinfo=UTC)
KEY = IdempotencyKey("anybody", "k", b"asked", "first")


def test_what_advises_to_retry_is_not_kept() -> None:
    """The table's own words decide: a refusal that says "retry" is not kept, one that says not to is."""
    for kind, row in rows(Refusal):
        assert row.problem is not None
        advice = row.problem.advice.lower()
        if "do not retry" in advice:
            assert row.is_stored, kind
        elif "retry" in advice.replace("only to retry it", ""):
            assert not row.is_stored, kind


@pytest.mark.parametrize("outcome", [NotStarted(NOW, 2.0), Paused(), CodeNotClaimed()])
def test_what_is_over_soon_is_not_kept(outcome: Outcome) -> None:
    assert not is_stored(outcome)
    assert "retry" in problem_of(outcome).advice.lower()


@pytest.mark.parametrize(
    ("codes", "is_kept"),
    [
        ([], True),
        ([ReasonCode.NOT_LISTED], True),
        (["sold-out"], True),
        (["paused"], False),
        ([ReasonCode.ATTRIBUTE_MISSING, "not-started"], False),
    ],
)
def test_an_eligibility_is_kept_unless_a_reason_is_over_soon(codes: list[str], is_kept: bool) -> None:
    assert is_stored(Eligibility(tuple(map(Reason, codes)))) is is_kept


def test_answers_that_older_versions_kept_are_still_read() -> None:
    value = {"starts_at": "2026-11-21T00:00:00Z", "seconds": 2.0}
    assert decode({"kind": "not-started", "value": value}) == NotStarted(NOW, 2.0)
    assert decode({"kind": "paused", "value": {}}) == Paused()
    assert decode({"kind": "code-not-claimed", "value": {}}) == CodeNotClaimed()


def test_an_answer_that_another_instance_replays_is_the_answer_itself() -> None:
    claim = Claim("id", "spring", "ada", ClaimState.ACTIVE, NOW)
    for answer in (SoldOut(), Claimed(claim)):
        assert decode(encode(Replayed(answer, "first"))) == Replayed(answer, "first")


@given(
    paused=st.booleans(),
    seconds_to_start=st.integers(-2, 2),
    seconds_later=st.integers(0, 4),
    asked=st.integers(1, 3),
)
def test_a_key_whose_coupon_was_not_open_is_given_a_unit_as_soon_as_it_is(
    paused: bool, seconds_to_start: int, seconds_later: int, asked: int
) -> None:
    """The same request, some times before and once after the coupon opens: nothing but a unit is kept."""
    starts_at = NOW + timedelta(seconds=seconds_to_start)
    attempts = [
        Attempt(f"claim-{number}", "spring", "ada", ClaimOptions(idempotency_key=KEY)) for number in range(asked)
    ]
    first = decide(Facts({"spring": CouponFacts(1, NOW, Campaign(starts_at, paused=paused))}), attempts)
    was_open = not paused and seconds_to_start <= 0
    assert isinstance(first.outcomes[0], Claimed) == was_open
    assert [type(answer) for _, answer in first.answers] == ([Claimed] if was_open else [])

    kept: dict[tuple[str, str], AnswerRecord] = {
        (key.caller, key.key): AnswerRecord(key.fingerprint, answer, key.request_id) for key, answer in first.answers
    }
    later = CouponFacts(1 - len(first.given), NOW + timedelta(seconds=seconds_later), Campaign(starts_at))
    again: ClaimOutcome = decide(Facts({"spring": later}, answers=kept), attempts[:1]).outcomes[0]
    if not was_open:
        assert isinstance(again, Claimed if seconds_later >= seconds_to_start else NotStarted)
