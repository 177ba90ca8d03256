"""Names of coupons: words of letters, digits and . _ -, single blanks between them, not only dots."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from claimsvc.domain import COUPON_NAME_PATTERN, COUPON_TYPE_PATTERN
from claimsvc.http.framework.parameters import _NAME_CURSOR

_CHARACTERS = "aZ09._-"


def is_name(text: str) -> bool:
    return re.fullmatch(COUPON_NAME_PATTERN, text, re.ASCII) is not None


def by_the_rule(text: str) -> bool:
    words = text.split(" ")
    return all(word and set(word) <= set(_CHARACTERS) for word in words) and any(set(word) != {"."} for word in words)


@pytest.mark.parametrize("name", ["a", "Load Test Campaign", ". a", "a .", "a . b", "_", "-1 -"])
def test_words_with_single_blanks_are_names(name: str) -> None:
    assert is_name(name)


@pytest.mark.parametrize(
    "text", ["", " ", " a", "a ", "a  b", "a\tb", "a\u00a0b", "a\n", "a b\n", ".", ".. .", "a\u3000b"]
)
def test_other_blanks_and_dots_alone_are_none(text: str) -> None:
    assert not is_name(text)


@given(st.text(st.sampled_from(_CHARACTERS + " \t\n\u00a0+"), max_size=12))
@example("." * 50 + " " + "." * 50)
def test_the_pattern_is_the_rule(text: str) -> None:
    assert is_name(text) == by_the_rule(text)
    assert (re.fullmatch(COUPON_TYPE_PATTERN, text) is not None) == (by_the_rule(text) and " " not in text)


@given(st.text(st.sampled_from(_CHARACTERS + " +"), min_size=1, max_size=12))
def test_cursors_are_of_names_alone(text: str) -> None:
    """The document describes valid cursors exactly, and every page has one."""
    assert (re.fullmatch(_NAME_CURSOR, text.encode("ascii").hex()) is not None) == is_name(text)
