"""Lists of users: a heading is never a user, however it is written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claimsvc.representations.user_lists import BadListError, ListFormat, ListReader


def read(list_format: ListFormat, file: bytes) -> list[str]:
    reader = ListReader(list_format)
    return [*reader.feed(file), *reader.end()]


@pytest.mark.parametrize("list_format", [ListFormat.LINES, ListFormat.CSV])
@given(st.booleans(), st.sampled_from(["", "\n", "\r\n\n"]), st.sampled_from(["user_id", "User_ID", "USER_ID"]))
def test_no_heading_becomes_a_user(list_format: ListFormat, marked: bool, blank: str, heading: str) -> None:
    file = ("\ufeff" * marked + f"{blank}{heading}\r\nann\n").encode()
    assert read(list_format, file) == ["ann"]


def test_the_column_of_csv_is_found_in_any_case() -> None:
    assert read(ListFormat.CSV, b'\n"City","User_Id"\nSeoul,ann\n') == ["ann"]


@pytest.mark.parametrize(
    "line",
    [
        *("userid", "User-ID", "users", '"user_id"', "user_id,city", "city;user_id", "id\tuser_id"),
        *("username", "customer_id", "id", "email", "E-Mail", "Member ID", "app_user_id", "email,city"),
    ],
)
def test_what_looks_like_a_heading_of_plain_text_and_is_none_is_refused_with_its_line(line: str) -> None:
    with pytest.raises(BadListError, match=r"^Line 2: the line looks like a heading"):
        read(ListFormat.LINES, f"\n{line}\nann\n".encode())


def test_below_a_heading_such_a_line_is_a_user() -> None:
    assert read(ListFormat.LINES, b"user_id\nuserid\nemail\n") == ["userid", "email"]
    assert read(ListFormat.LINES, b"ann\nuser_id\n") == ["ann", "user_id"]


@pytest.mark.parametrize(
    ("list_format", "file"),
    [
        (ListFormat.CSV, b"user_id,city\nann,Seoul\nuser_id,city\n"),
        (ListFormat.LINES, b"user_id\nann\nuser_id\n"),
    ],
)
def test_a_heading_inside_of_files_that_were_joined_is_refused(list_format: ListFormat, file: bytes) -> None:
    with pytest.raises(BadListError, match=r"^Line 3: the line repeats the heading"):
        read(list_format, file)


@pytest.mark.parametrize("heading", ["user_id,User_Id", "user_id,user_id", "userid"])
def test_csv_must_name_the_column_once(heading: str) -> None:
    with pytest.raises(BadListError, match=r"^Line 1: the first line of CSV must name the columns"):
        read(ListFormat.CSV, f"{heading}\nann,bob\n".encode())
