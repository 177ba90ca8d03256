"""Mistakes: whatever a document is, each place that is wrong has one sentence, and no place is invented."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from claimsvc.http.framework.schemas import ClaimCoupon
from claimsvc.representations.coupons import ChangeCoupon, CreateCoupon
from claimsvc.representations.fields import Request
from claimsvc.representations.mistakes import MAX_MISTAKES, Mistake, mistakes_of, nearest

NAMES = st.sampled_from(
    [
        *("name", "amount", "benefit", "metadata", "rules", "attributes", "holds", "holds_not", "one_of", "at_least"),
        *("percent_off", "amount_off", "currency", "text", "PercentOff", "[key]", "constrained-str", "user_id", "type"),
        *("hold_not", "a b", "", "~/", "x" * 70, "\u200b"),
    ]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3) | NAMES
DOCUMENTS = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=20
)
BODIES = st.dictionaries(NAMES, DOCUMENTS, max_size=5)


def made_in(document: Any, model: type[Request]) -> list[Mistake]:
    with pytest.raises(ValidationError) as refused:
        model.model_validate(document)
    return mistakes_of(refused.value, model)


@settings(deadline=None)
@given(BODIES, st.sampled_from([CreateCoupon, ChangeCoupon, ClaimCoupon]))
def test_each_place_that_is_wrong_has_one_sentence(document: dict[str, Any], model: type[Request]) -> None:
    try:
        model.model_validate(document)
        return
    except ValidationError as error:
        mistakes = mistakes_of(error, model)
    assert 1 <= len(mistakes) <= MAX_MISTAKES
    assert len({mistake.place for mistake in mistakes}) == len(mistakes)
    for mistake in mistakes:
        assert mistake.message.endswith(".")
        assert not {"Input", "String", "should", "Extra", "Field"} & set(mistake.message.split())
        *above, last = mistake.place or ("",)
        found: Any = document
        for part in above:
            found = found[part]
        if mistake.message.startswith("Required"):
            assert last not in found
        elif mistake.place:
            assert found[last] is found[last]  # the place exists


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("holdsNot", "holds_not"),
        ("hold-not", "holds_not"),
        ("HOLDS_NOT", "holds_not"),
        ("colour", ""),
        ("z" * 65, ""),
        ("\u200bholds", ""),
    ],
)
def test_the_name_that_was_probably_meant_is_named(wrong: str, right: str) -> None:
    assert nearest(wrong, ("attributes", "holds", "holds_not")) == right


def test_no_more_than_twenty_are_told() -> None:
    mistakes = made_in({f"n{number}": 1 for number in range(100)}, CreateCoupon)
    assert len(mistakes) == MAX_MISTAKES
