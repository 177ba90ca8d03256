"""Codes from patterns, without a database: which are drawn, and how many a coupon may have."""

import re
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claimsvc.domain import code_generation
from claimsvc.domain.code_generation import Draws, is_hard_to_guess, make_codes, possibilities, regular_expression

patterns = st.text("AC9X5_-가", min_size=1, max_size=8)
small_patterns = st.text("AC9X5_-가", min_size=1, max_size=3).filter(lambda pattern: possibilities(pattern) <= 10_000)


@given(small_patterns, st.integers(1, 700))
def test_of_a_small_pattern_every_code_is_drawn_once(pattern: str, at_once: int) -> None:
    draws = Draws(pattern, 1)
    drawn: list[str] = []
    while part := draws.draw(at_once):
        assert len(part) <= at_once
        drawn += part
    assert len(set(drawn)) == len(drawn) == possibilities(pattern)
    assert all(re.fullmatch(regular_expression(pattern), code) for code in drawn)


@given(patterns)
def test_the_regular_expression_matches_the_codes_of_the_pattern_alone(pattern: str) -> None:
    [code] = make_codes(pattern, 1)
    expression = regular_expression(pattern)
    assert re.fullmatch(expression, code)
    assert not re.fullmatch(expression, code + "A")
    assert not re.fullmatch(expression, code[:-1] + "0")


def test_of_a_large_pattern_codes_are_drawn_until_it_is_clear_that_none_is_left() -> None:
    draws = Draws("가" * 8, 100)
    assert len(set(draws.draw(100))) == 100
    drawn = 100
    while part := draws.draw(100_000):
        drawn += len(part)
    assert drawn >= 1_000_000


def test_codes_are_drawn_in_another_order_each_time() -> None:
    assert Draws("999", 1).draw(512) != Draws("999", 1).draw(512)


@given(patterns, st.integers(1, 10**6))
def test_a_guess_at_the_codes_of_a_coupon_hits_once_in_a_thousand_at_most(pattern: str, codes: int) -> None:
    assert is_hard_to_guess(pattern, codes) == (codes / possibilities(pattern) <= 1 / 1000)


@pytest.mark.parametrize("pattern", ["가" * 64, "A" * 64])
def test_characters_are_shared_by_the_codes(pattern: str) -> None:
    """A Hangul syllable of its own would take 76 bytes, six million of them half a gigabyte."""
    code_generation.make_codes(pattern, 1)
    tracemalloc.start()
    try:
        make_codes(pattern, 1000)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
