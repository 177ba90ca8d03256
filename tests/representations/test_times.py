"""Date-times: every way in reads the same ones, as the same moments."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from claimsvc.domain import NewCode
from claimsvc.domain.times import parse_time
from claimsvc.representations.audit import AuditSelection
from claimsvc.representations.code_files import CSV, NDJSON, RowReader
from claimsvc.representations.coupons import ChangeCoupon


def _from_file(media_type: str, line: str) -> datetime | None:
    reader = RowReader(media_type)
    [row] = [*reader.feed(line.encode()), *reader.finish()]
    return row.expires_at if isinstance(row, NewCode) else None


def _of_coupon(text: str) -> datetime | None:
    return ChangeCoupon.model_validate({"ends_at": text}).ends_at


def _of_audit(text: str) -> datetime | None:
    return AuditSelection.model_validate({"since": text}).since


def _of_ndjson(text: str) -> datetime | None:
    return _from_file(NDJSON, json.dumps({"code": "A-1", "expires_at": text}))


def _of_csv(text: str) -> datetime | None:
    return _from_file(CSV, f"A-1,{text}")


WAYS: dict[str, Callable[[str], datetime | None]] = {
    "CSV": _of_csv,
    "NDJSON": _of_ndjson,
    "JSON": _of_coupon,
    "query and command line": _of_audit,
    "command line": parse_time,
}


def read(way: Callable[[str], datetime | None], text: str) -> datetime | None:
    """The moment that a way reads; None if it refuses."""
    try:
        return way(text)
    except ValueError:
        return None


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize(
    "text",
    [
        *("2030-01-01T00:00:00Z", "2030-01-01T00:00:00z", "2030-01-01t00:00:00z", "2030-01-01 00:00:00Z"),
        *("2030-01-01T00:00:00.0Z", "2030-01-01T00:00:00.000000000Z", "2030-01-01T09:00:00+09:00"),
        *("2029-12-31T23:59:00-00:01", "2030-01-01T00:00:00-00:00"),
    ],
)
def test_rfc_3339_is_read(way: Callable[[str], datetime | None], text: str) -> None:
    assert read(way, text) == datetime(2030, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize(
    "text",
    [
        *("2030-W01-1T00:00:00Z", "20300101T000000Z", "2030-01-01T00Z", "2030-01-01T00:00Z", "2030-01-01", "2030-001"),
        *("2030-01-01T00:00:00", "2030-01-01T00:00:00+09", "2030-01-01T00:00:00+0900", "2030-01-01T00:00:00,5Z"),
        *("2030-01-01T24:00:00Z", "2030-02-30T00:00:00Z", "2030-01-01T00:00:00+09:60", "2030-01-01T00:00:00+24:00"),
        *("2030-01-01T00:00:00+09:00:30", "2030-01-01_00:00:00Z", "1893456000", "9999-12-31T23:59:59-00:01", "now"),
    ],
)
def test_what_is_not_rfc_3339_is_refused(way: Callable[[str], datetime | None], text: str) -> None:
    assert read(way, text) is None


@given(
    st.datetimes(timezones=st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))),
    st.sampled_from("Tt "),
)
@example(datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1))), "T")
def test_every_moment_is_read_alike(moment: datetime, separator: str) -> None:
    try:
        expected = moment.astimezone(UTC)
    except OverflowError:
        expected = None
    assert {read(way, moment.isoformat(separator)) for way in WAYS.values()} == {expected}


@given(st.text("0123456789-+:.TZtzW ", max_size=30))
def test_no_way_in_reads_what_another_refuses(text: str) -> None:
    # Files without an expiry have an empty one, and their cells are trimmed.
    if text.strip() == text != "":
        assert len({read(way, text) for way in WAYS.values()}) == 1
