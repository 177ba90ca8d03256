"""Texts that promise to be visible are: no character that shows nothing may begin them, whatever its category."""

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claimsvc.domain import is_visible_line

# Signs of Arabic, Syriac and Kaithi that are shown, although their category is that of formats.
_SHOWN = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}
# What Unicode calls ignorable by default, or draws empty, in categories of what is shown.
_BLANK = [
    0x34F,
    0x115F,
    0x1160,
    0x17B4,
    0x17B5,
    0x180B,
    0x180F,
    0x2800,
    0x3164,
    0xFE00,
    0xFE0F,
    0xFFA0,
    0x1D159,
    0xE0100,
]


@pytest.mark.parametrize(
    "text", ["\u200b", "\ufeff", "\u202e", "\u3164", "\u200b\ufeff", "\U000e0041", " ", "\u3000a", ""]
)
def test_what_shows_nothing_is_no_text(text: str) -> None:
    assert not is_visible_line(text)


@pytest.mark.parametrize("text", ["it hangs", "고객 요청", "بطلب العميل", "👩‍👩‍👧 asked", "é", "می‌خواهم", "¿?"])
def test_texts_of_every_script_are_taken(text: str) -> None:
    assert is_visible_line(text)


@pytest.mark.parametrize("character", ["\n", "\x1b", "\x9b", "\u2028", "\u202e", "\u2066", "\x00"])
def test_a_line_holds_nothing_that_breaks_or_reorders_it(character: str) -> None:
    assert not is_visible_line(f"paid{character}back")


def test_no_character_that_is_invisible_by_its_category_begins_a_text() -> None:
    categories = {"Cc", "Cf", "Zs", "Zl", "Zp"}
    invisible = [code for code in range(sys.maxunicode) if unicodedata.category(chr(code)) in categories]
    assert len(invisible) > 200
    assert [hex(code) for code in (*invisible, *_BLANK) if code not in _SHOWN and is_visible_line(chr(code))] == []


@given(st.text(min_size=1), st.text())
def test_what_precedes_a_visible_line_decides_as_it_does_alone(start: str, end: str) -> None:
    """Whether a text is refused never depends on more than its first character, and on each that follows."""
    whole = is_visible_line(start + end)
    assert whole == (is_visible_line(start) and (not end or is_visible_line("a" + end)))
