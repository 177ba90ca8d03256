"""What is decided of claims that meet rules, without a database: whatever the facts are, these things hold."""

import math
from collections import Counter
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claimsvc.domain import (
    Attempt,
    AttributeRule,
    Campaign,
    Claimed,
    ClaimOptions,
    EligibilityRules,
    ListKind,
    NotEligible,
    Reason,
    ReasonCode,
    Scalar,
    Source,
)
from claimsvc.domain.admission import CouponFacts, Facts, decide, obstacles

NOW = datetime(2026, 11, 21, tzinfo=UTC)
USERS = ("ada", "bob", "eve")
NAMES = ("spring", "summer")

scalars = st.one_of(
    st.sampled_from(["KR", "JP", ""]), st.booleans(), st.sampled_from([0, 1, 2, 18]), st.sampled_from([0.5, 1.0, 18.0])
)
numbers = st.none() | st.sampled_from([0, 1, 1.5, 18])
some = st.none() | st.lists(scalars, min_size=1, max_size=3).map(tuple)
attribute_rules = st.builds(
    AttributeRule, st.sampled_from("ab"), st.sampled_from(Source), one_of=some, none_of=some, at_least=numbers
)
names = st.lists(st.sampled_from(NAMES), max_size=2).map(tuple)
rules = st.builds(EligibilityRules, st.lists(attribute_rules, max_size=2).map(tuple), names, names)
attributes = st.dictionaries(st.sampled_from("ab"), scalars)
campaigns = st.builds(
    Campaign,
    paused=st.booleans(),
    rules=st.none() | rules,
    has_allow_list=st.booleans(),
    has_deny_list=st.booleans(),
    per_user_limit=st.integers(1, 2),
    claims_per_user=st.none() | st.integers(1, 3),
)
coupons = st.builds(CouponFacts, st.integers(0, 2), st.just(NOW), campaigns)
facts = st.builds(
    Facts,
    st.fixed_dictionaries(dict.fromkeys(NAMES, coupons)),
    listed=st.sets(st.tuples(st.sampled_from(NAMES), st.sampled_from(USERS), st.sampled_from(ListKind))),
    other_claims=st.sets(st.tuples(st.sampled_from(NAMES), st.sampled_from(USERS))),
    ended_claims=st.dictionaries(st.tuples(st.sampled_from(NAMES), st.sampled_from(USERS)), st.integers(1, 12)),
)
wants = st.none() | st.builds(ClaimOptions, attributes=attributes, token=attributes)


@st.composite
def lines(draw: st.DrawFn) -> list[Attempt]:
    asked = draw(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(USERS), wants), max_size=6))
    return [Attempt(f"claim-{place}", *each) for place, each in enumerate(asked)]


@given(facts, lines())
def test_a_unit_is_given_only_to_whom_nothing_stands_in_the_way(facts: Facts, line: list[Attempt]) -> None:
    for attempt in line:
        [outcome] = decide(facts, [attempt]).outcomes
        found = obstacles(facts, attempt)
        assert isinstance(outcome, Claimed) == (not found)
        if found:
            assert outcome == found[0]


@given(facts, lines())
def test_nobody_is_given_more_than_there_is_nor_past_a_list(facts: Facts, line: list[Attempt]) -> None:
    decisions = decide(facts, line)
    assert len(decisions.outcomes) == len(line)
    units = Counter(each.claim.coupon_name for each in decisions.given)
    for name, coupon in facts.coupons.items():
        assert units[name] <= coupon.remaining_amount
    of_user = Counter((each.claim.coupon_name, each.claim.user_id) for each in decisions.given)
    for (name, user), made in of_user.items():
        assert made + facts.ended_claims.get((name, user), 0) <= facts.coupons[name].campaign.most_claims
    for each in decisions.given:
        name, user = each.claim.coupon_name, each.claim.user_id
        campaign = facts.coupons[name].campaign
        assert not campaign.has_allow_list or (name, user, ListKind.ALLOW) in facts.listed
        assert not campaign.has_deny_list or (name, user, ListKind.DENY) not in facts.listed


@given(facts, lines())
def test_who_is_not_eligible_takes_nothing_that_another_could_have_had(facts: Facts, line: list[Attempt]) -> None:
    decided = decide(facts, line)
    refused = [isinstance(outcome, NotEligible) for outcome in decided.outcomes]
    others = [attempt for attempt, is_refused in zip(line, refused, strict=True) if not is_refused]
    assert decide(facts, others).given == decided.given


@pytest.mark.parametrize(
    ("rule", "value", "holds"),
    [
        (AttributeRule("a"), "", True),
        (AttributeRule("a", one_of=("KR", "JP")), "KR", True),
        (AttributeRule("a", one_of=("KR",)), "kr", False),
        (AttributeRule("a", one_of=(1,)), 1.0, True),
        (AttributeRule("a", one_of=(1,)), True, False),
        (AttributeRule("a", one_of=(True,)), 1, False),
        (AttributeRule("a", one_of=("1",)), 1, False),
        (AttributeRule("a", none_of=("KR",)), "JP", True),
        (AttributeRule("a", none_of=("KR",)), "KR", False),
        (AttributeRule("a", at_least=18), 18, True),
        (AttributeRule("a", at_least=18), 17.9, False),
        (AttributeRule("a", at_least=18), "18", False),
        (AttributeRule("a", at_least=0), True, False),
        (AttributeRule("a", at_least=1, at_most=2), 2, True),
        (AttributeRule("a", at_least=1, at_most=2), 3, False),
        (AttributeRule("a", at_most=2), math.nan, False),
        (AttributeRule("a", one_of=("vip",)), ("new", "vip"), True),
        (AttributeRule("a", one_of=("vip",)), (), False),
        (AttributeRule("a", none_of=("banned",)), ("new", "banned"), False),
        (AttributeRule("a", at_least=1), (1, 2), False),
    ],
)
def test_an_attribute_is_judged_as_json_has_it(
    rule: AttributeRule, value: Scalar | tuple[Scalar, ...], holds: bool
) -> None:
    assert rule.admits(value) is holds
    rules = EligibilityRules((AttributeRule("first"), rule))
    for stated in ({"first": 1, rule.name: value}, {"first": 1}, {rule.name: value}):
        for request, token in ((stated, {}), ({}, stated)):
            is_met = not list(rules.broken(request, token, lambda _: False))
            assert is_met is rules.admit_attributes(request, token) is (holds and len(request) == 2)


def test_what_the_request_says_never_counts_for_the_token() -> None:
    rules = EligibilityRules((AttributeRule("vip", Source.TOKEN, one_of=(True,)),))
    assert list(rules.broken({"vip": True}, {}, lambda _: False)) == [
        Reason(ReasonCode.ATTRIBUTE_MISSING, "#/attributes/0")
    ]
    assert list(rules.broken({"vip": False}, {"vip": True}, lambda _: False)) == []


def test_a_claim_that_is_given_in_a_line_counts_for_those_behind_it() -> None:
    """Claims of two coupons decided in one transaction, the second of which asks for the first, or excludes it."""
    for rules, expected in (
        (EligibilityRules(holds=("spring",)), [NotEligible, Claimed, Claimed]),
        (EligibilityRules(holds_not=("spring",)), [Claimed, Claimed, NotEligible]),
    ):
        summer = CouponFacts(2, NOW, Campaign(rules=rules))
        facts = Facts({"spring": CouponFacts(1, NOW, Campaign()), "summer": summer})
        line = [Attempt("1", "summer", "bob"), Attempt("2", "spring", "ada"), Attempt("3", "summer", "ada")]
        assert [type(each) for each in decide(facts, line).outcomes] == expected
