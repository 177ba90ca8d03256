"""Files of codes: a heading is never a code, however it is written, and is not counted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claimsvc.domain import NewCode, RefusedRow, RowReason
from claimsvc.representations import code_files
from claimsvc.representations.code_files import CSV, NDJSON, BadCodeFileError, Row, RowReader, TooManyRowsError


def read(file: bytes, media_type: str = CSV) -> list[Row]:
    reader = RowReader(media_type)
    return [*reader.feed(file), *reader.finish()]


def codes(file: bytes) -> list[str]:
    return [row.code for row in read(file) if isinstance(row, NewCode)]


@pytest.mark.parametrize(
    "heading",
    [
        *("Code", "CODE", " code ", '"Code"', "\n\ncode", "\ufeffCode", "\ufeff\r\n \r\nCode", '\ufeff"code"', "code,"),
        *("Code,Expires_At", '"CODE","EXPIRES_AT"', "\n\nCode,expires_at"),
    ],
)
def test_a_heading_is_skipped(heading: str) -> None:
    assert codes(f"{heading}\r\nA-1\r\nA-2,\r\n".encode()) == ["A-1", "A-2"]


@given(
    st.text("\r\n ", max_size=5),
    st.sampled_from(["code", "code,expires_at", '"code","expires_at"', "code , expires_at"]),
    st.lists(st.booleans(), min_size=20, max_size=20),
    st.booleans(),
    st.integers(0, 60),
)
def test_no_heading_becomes_a_code(blank: str, heading: str, cases: list[bool], marked: bool, cut: int) -> None:
    written = "".join(
        letter.upper() if upper else letter for letter, upper in zip(heading, cases + cases, strict=False)
    )
    file = ("\ufeff" * marked + f"{blank}\n{written}\nA-1\n").encode()
    reader = RowReader(CSV)
    rows = [*reader.feed(file[:cut]), *reader.feed(file[cut:]), *reader.finish()]
    assert [row.code for row in rows] == ["A-1"]


def test_columns_are_taken_in_the_order_of_the_heading() -> None:
    [row] = read(b"Expires_at,Code\n2126-01-01T00:00:00Z,A-1\n")
    assert isinstance(row, NewCode)
    assert (row.code, row.expires_at is not None) == ("A-1", True)


@pytest.mark.parametrize(
    "heading",
    [
        "codes",
        "Coupon code",
        "coupon_code",
        "code,note",
        "code,code",
        "code,expires_at,note",
        "쿠폰번호",
        "A,expires_at",
    ],
)
def test_what_looks_like_a_heading_and_is_none_is_refused_with_its_line(heading: str) -> None:
    with pytest.raises(BadCodeFileError, match=r"^Line 2 looks like a heading"):
        read(f"\n{heading}\nA-1\n".encode())
    # Below a heading it is data.
    assert codes(f"code\n{heading}\n".encode()) == (
        [heading] if heading in ("codes", "coupon_code", "쿠폰번호") else []
    )


def test_a_heading_inside_of_files_that_were_joined_is_refused() -> None:
    assert read(b"code\nA-1\ncode\nA-2\n")[1] == RefusedRow(3, "", RowReason.BAD_ROW)


def test_codes_without_a_heading_are_all_read() -> None:
    assert codes(b"A-1\ncode\n") == ["A-1", "code"]


def test_the_limit_counts_rows_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_files, "MAX_ROWS", 3)
    assert codes(b"\ncode\nA-1\n\nA-2\nA-3") == ["A-1", "A-2", "A-3"]
    assert len(read(b'\n{"code": "A"}\n\n{"code": "B"}\n{"code": "C"}\n', NDJSON)) == 3
    for file in (b"A-1\nA-2\nA-3\nA-4\n", b"code\nA-1\n\xff\nA-3\nA-4\n"):
        with pytest.raises(TooManyRowsError):
            read(file)
