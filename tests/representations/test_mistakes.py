"""Mistakes: whatever a document is, each place that is wrong has one sentence, and no place is invented."""

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from claimsvc.http.framework.schemas import ClaimCoupon
from claimsvc.representations import mistakes
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
        made = mistakes_of(error, model)
    assert 1 <= len(made) <= MAX_MISTAKES
    assert len({mistake.place for mistake in made}) == len(made)
    for mistake in made:
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
    assert len(made_in({f"n{number}": 1 for number in range(100)}, CreateCoupon)) == MAX_MISTAKES


def test_a_near_name_is_looked_for_no_more_often_than_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes a tenth of a millisecond for each name, and one body can have hundreds of unknown ones."""
    looked_for = []

    def counted(name: str, allowed: Iterable[str]) -> str:
        looked_for.append(name)
        return nearest(name, allowed)

    monkeypatch.setattr(mistakes, "nearest", counted)
    rule = {f"{letter * 60}": 1 for letter in "abcdefghijklmnopqrst"}
    found = made_in({"name": "a", "amount": 1, "rules": {"attributes": [rule] * 20}}, CreateCoupon)
    assert len(found) == MAX_MISTAKES
    assert len(looked_for) <= 2 * MAX_MISTAKES
