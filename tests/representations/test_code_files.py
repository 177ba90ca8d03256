"""Files of codes: a heading is never a code, however it is written, and is not counted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claimsvc.domain import MAX_CODE_TYPES, NewCode, OpenTerms, RefusedRow, RowReason
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


@given(
    st.sampled_from(["code", "code,expires_at", "expires_at,code", "code,,type", ",code"]),
    st.integers(0, 8),
    st.data(),
)
def test_a_spreadsheet_may_end_each_line_with_commas(heading: str, commas: int, data: st.DataObject) -> None:
    row = ",".join({"code": "A-1", "type": "vip"}.get(column, "") for column in heading.split(","))
    fewer = data.draw(st.integers(0, commas))
    file = f"{heading}{',' * commas}\n{row}{',' * commas}\n{row}{',' * fewer}\n".encode()
    kind = "vip" if "type" in heading else None
    assert [(each.code, each.type) for each in read(file) if isinstance(each, NewCode)] == [("A-1", kind)] * 2
    assert read(f"{heading}{',' * commas}\n{row}{',' * commas},,\n".encode()) == [RefusedRow(2, "", RowReason.BAD_ROW)]


def test_cells_below_an_empty_cell_of_the_heading_are_refused() -> None:
    file = b"code,,\nA-1,,\nA-2,2126-01-01T00:00:00Z,\nA-3,,note\n"
    rows = read(file)
    assert [row.code for row in rows] == ["A-1", "A-2", ""]
    assert rows[2] == RefusedRow(4, "", RowReason.BAD_ROW)


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
        "code,type,note",
        "code,type,Type",
        "type,percent_off",
        "Coupon code,type",
        *("voucher_code", "promo_code", "discount_code", "Gutscheincode", "CODE_ID", "할인 코드", "일련번호"),
        *("coupon", "voucher", "serial", "쿠폰", "Serial Number", "type", "text", "percent_off", "Percent off"),
        "id,voucher_code",
    ],
)
def test_what_looks_like_a_heading_and_is_none_is_refused_with_its_line(heading: str) -> None:
    with pytest.raises(BadCodeFileError, match=r"^Line 2 looks like a heading"):
        read(f"\n{heading}\nA-1\n".encode())
    # Below a heading it is data.
    assert codes(f"code\n{heading}\n".encode()) == ([] if set(heading) & set(" ,") else [heading])


@given(
    st.from_regex(r"\A[A-Za-z]{0,8}[ _.-]{0,2}\Z"),
    st.sampled_from(["code", "codes", "코드"]),
    st.sampled_from(["", " ", ":", ".", "*", ",", ",2126-01-01T00:00:00Z"]),
    st.lists(st.booleans(), min_size=20, max_size=20),
)
def test_no_first_line_that_ends_in_code_is_a_code(word: str, end: str, sign: str, cases: list[bool]) -> None:
    written = "".join(letter.upper() if upper else letter for letter, upper in zip(word + end, cases, strict=False))
    file = f"{written}{sign}\nA-1\n".encode()
    if written.strip().lower() == "code" and sign in ("", " ", ","):
        assert codes(file) == ["A-1"]
    else:
        with pytest.raises(BadCodeFileError, match=r"^Line 1 looks like a heading"):
            read(file)


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


def test_a_heading_may_name_more_columns_in_any_order() -> None:
    file = b"""Currency,TYPE,code,,amount_off,Expires_At,percent_off,text
KRW,vip,A-1,,5000.0,2126-01-01T00:00:00Z,,
,,A-2,,,,12.5,
,,A-3,,,,,"tea, or '=1"
,,A-4
,,A-5,note,,,,
,,A-6,,,,,,,
"""
    rows = read(file)
    assert [(row.code, row.type, row.benefit) for row in rows if isinstance(row, NewCode)] == [
        ("A-1", "vip", {"amount_off": 5000, "currency": "KRW"}),
        ("A-2", None, {"percent_off": 12.5}),
        ("A-3", None, {"text": "tea, or '=1"}),
        ("A-4", None, None),
    ]
    assert rows[4:] == [RefusedRow(6, "", RowReason.BAD_ROW), RefusedRow(7, "", RowReason.BAD_ROW)]


def test_below_the_first_line_a_code_may_have_the_name_of_a_column() -> None:
    assert codes(b"A-1\ntype\ntext,2126-01-01T00:00:00Z\n") == ["A-1", "type", "text"]
    assert codes(b"code\ntype\nvoucher_code\n") == ["type", "voucher_code"]
    assert read(b"A-1,,vip\n") == [RefusedRow(1, "", RowReason.BAD_ROW)]


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ("a b,,,,", RowReason.BAD_TYPE),
        ("..,,,,", RowReason.BAD_TYPE),
        ("a" * 256 + ",,,,", RowReason.BAD_TYPE),
        (",15%,,,", RowReason.BAD_BENEFIT),
        (",0,,,", RowReason.BAD_BENEFIT),
        (",101,,,", RowReason.BAD_BENEFIT),
        (",1e1,,,", RowReason.BAD_BENEFIT),
        (",\u0665,,,", RowReason.BAD_BENEFIT),
        (",,5000,,", RowReason.BAD_BENEFIT),
        (",,5000.5,KRW,", RowReason.BAD_BENEFIT),
        (",,9007199254740992,KRW,", RowReason.BAD_BENEFIT),
        (",,,KRW,", RowReason.BAD_BENEFIT),
        (",,5000,krw,", RowReason.BAD_BENEFIT),
        (",15,,,tea", RowReason.BAD_BENEFIT),
        (",,,," + "a" * 501, RowReason.BAD_BENEFIT),
        (",,,,a\u202eb", RowReason.BAD_BENEFIT),
    ],
)
def test_what_is_no_type_and_no_benefit_is_refused(cells: str, reason: RowReason) -> None:
    file = f"code,type,percent_off,amount_off,currency,text\nA-1,{cells}\n"
    assert read(file.encode()) == [RefusedRow(2, "A-1", reason)]


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        ('"type": 5', RowReason.BAD_TYPE),
        ('"type": false', RowReason.BAD_TYPE),
        ('"type": ["vip"]', RowReason.BAD_TYPE),
        ('"benefit": {}', RowReason.BAD_BENEFIT),
        ('"benefit": "tea"', RowReason.BAD_BENEFIT),
        ('"benefit": []', RowReason.BAD_BENEFIT),
        ('"benefit": {"percent_off": "15"}', RowReason.BAD_BENEFIT),
        ('"benefit": {"percent_off": true}', RowReason.BAD_BENEFIT),
        ('"benefit": {"percent_off": 15, "other": 1}', RowReason.BAD_BENEFIT),
        ('"benefit": {"amount_off": 5000, "currency": "KRW", "text": "tea"}', RowReason.BAD_BENEFIT),
        ('"benefit": {"percentoff": 15}', RowReason.BAD_BENEFIT),
        ('"percent_off": 15', RowReason.BAD_ROW),
    ],
)
def test_what_is_no_type_and_no_benefit_in_json_is_refused(member: str, reason: RowReason) -> None:
    code = "" if reason is RowReason.BAD_ROW else "A-1"
    assert read(f'{{"code": "A-1", {member}}}'.encode(), NDJSON) == [RefusedRow(1, code, reason)]
    assert read(b'{"code": "A-1", "type": null, "benefit": null}', NDJSON) == [NewCode(1, "A-1")]


_ROWS = st.lists(
    st.tuples(st.sampled_from([None, *(f"type-{number}" for number in range(MAX_CODE_TYPES + 5))]), st.booleans()),
    max_size=300,
)


@given(_ROWS, st.booleans(), st.booleans(), st.sets(st.integers(0, 120), max_size=MAX_CODE_TYPES))
def test_no_row_has_what_its_coupon_has_and_no_coupon_too_many_types(
    rows: list[tuple[str | None, bool]], has_type: bool, has_benefit: bool, known: set[int]
) -> None:
    coupon = OpenTerms(has_type, has_benefit, frozenset(f"type-{number}" for number in known))
    given_rows = [
        NewCode(number, f"C-{number}", None, own, {"text": "tea"} if is_worth else None)
        for number, (own, is_worth) in enumerate(rows)
    ]
    refused = coupon.refused(given_rows)
    added = [row for row in given_rows if row.code not in refused]
    assert not (has_type and any(row.type for row in added))
    assert not (has_benefit and any(row.benefit for row in added))
    types = coupon.code_types | {row.type for row in added if row.type}
    assert len(types) <= MAX_CODE_TYPES
    for row in given_rows:
        if RowReason.TOO_MANY_TYPES is refused.get(row.code):
            assert len(types) == MAX_CODE_TYPES
            assert row.type not in types
        if not row.has_terms:
            assert row.code not in refused
