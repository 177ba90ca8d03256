"""Cells of CSV: no formula, whatever separates them, and each text read back exactly."""

import csv
import io

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from claimsvc.representations.csv_cells import guarded, unguarded
from claimsvc.representations.user_lists import ListFormat, ListReader

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_TRICKY = st.text(st.sampled_from("=+-@;,'\"%3B25a\t\r |"), max_size=12)
_USER = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=255)


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("+8210", "'+8210"),
        ("'+8210", "''+8210"),
        ("''", "'''"),
        ("a;=HYPERLINK(1)", "'a%3B=HYPERLINK(1)"),
        ("=50%", "'=50%25"),
        ("=%3B", "'=%253B"),
        ("50%3B", "50%3B"),
        ("ann@example.com", "ann@example.com"),
        ("a,b", "a,b"),
    ],
)
def test_texts_have_these_cells(text: str, cell: str) -> None:
    assert (guarded(text), unguarded(cell)) == (cell, text)


@given(_TRICKY | st.text(max_size=20))
@example("'")
@example("")
def test_every_text_is_read_back_and_begins_no_formula(text: str) -> None:
    cell = guarded(text)
    assert unguarded(cell) == text
    assert not cell.startswith(_FORMULA)
    assert ";" not in cell


@given(st.sets(_TRICKY | st.text(max_size=20), min_size=2, max_size=2))
def test_no_two_texts_look_the_same(texts: set[str]) -> None:
    assert len({guarded(text) for text in texts}) == 2


@pytest.mark.parametrize("cell", ["'ann", "'a%3Bb%", "'%3b", "'", "'a=1", "'ann;bob"])
def test_what_others_wrote_stands_for_itself(cell: str) -> None:
    assert unguarded(cell) == cell


@given(st.lists(_USER, min_size=1, max_size=10, unique=True), st.sampled_from(["user_id", "state,user_id"]))
def test_a_list_of_cells_is_the_list_of_users(users: list[str], heading: str) -> None:
    file = io.StringIO(newline="")
    writer = csv.writer(file, quoting=csv.QUOTE_ALL)
    writer.writerow(heading.split(","))
    for user in users:
        writer.writerow([*["active"] * heading.count(","), guarded(user)])
    reader = ListReader(ListFormat.CSV)
    assert [*reader.feed(file.getvalue().encode()), *reader.end()] == users


def test_other_formats_are_not_changed() -> None:
    for list_format, file in ((ListFormat.LINES, b"'+82\n"), (ListFormat.NDJSON, b'{"user_id": "\'+82"}\n')):
        reader = ListReader(list_format)
        assert [*reader.feed(file), *reader.end()] == ["'+82"]
