"""`claimsvc codes`."""

import json
from pathlib import Path

import psycopg

from tests.support.program import claimsvc_here


def test_codes_are_added_shown_and_redeemed(database_url: str, tmp_path: Path) -> None:
    def codes(*arguments: str) -> tuple[int, str]:
        done = claimsvc_here("codes", *arguments, CLAIMSVC_DATABASE_URL=database_url)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout + done.stderr

    claimsvc_here("coupon", "create", "spring", "--amount", "5", CLAIMSVC_DATABASE_URL=database_url)
    file = tmp_path / "codes.csv"
    file.write_text("code,expires_at\nB-1,2126-01-01T00:00:00Z\nB-2\nB-2\n")
    assert codes("upload", "spring", str(file)) == (1, "Row 4: duplicate B-2\n0 codes were added to spring.\n")
    status, told = codes("upload", "spring", str(file), "--partial", "--json")
    assert (status, json.loads(told)["added"]) == (1, 2)
    more = tmp_path / "codes.ndjson"
    more.write_text('{"code": "C-1"}\n')
    assert codes("upload", "spring", str(more)) == (0, "1 codes were added to spring.\n")
    made = codes("generate", "spring", "--count", "3", "--pattern", "가가가-999")
    assert made == (0, "3 codes were added to spring.\n")
    spreadsheet = tmp_path / "spreadsheet.csv"
    spreadsheet.write_bytes("\ufeff\r\nCode,Expires_At\r\nS-1,2126-01-01T00:00:00.5z\r\n".encode())
    assert codes("upload", "spring", str(spreadsheet)) == (0, "1 codes were added to spring.\n")
    spreadsheet.write_text("\nCoupon code\nS-2\n")
    status, told = codes("upload", "spring", str(spreadsheet))
    assert (status, "Line 2 looks like a heading" in told) == (1, True)
    status, told = codes("show", "B-1", "--json")
    assert (status, json.loads(told)["state"]) == (0, "free")
    for arguments, words in (
        (("redeem", "B-1"), "B-1 does not belong to a claim"),
        (("show", "none"), "there is no code none"),
        (("upload", "autumn", str(more)), "there is no coupon autumn"),
        (("upload", "spring", str(tmp_path / "none.csv")), "cannot be read"),
        (("generate", "spring", "--count", "9999", "--pattern", "99"), "would be easy to guess"),
    ):
        status, told = codes(*arguments)
        assert (status, words in told) == (1, True), told
    with psycopg.connect(database_url.replace("+psycopg", "")) as connection:
        [coupon] = connection.execute("SELECT amount, remaining_amount FROM coupons").fetchall()
        actions = connection.execute("SELECT action, details FROM audit ORDER BY id").fetchall()
    assert coupon == (7, 7)
    assert actions[-4:] == [
        ("codes.add", {"codes": 2}),
        ("codes.add", {"codes": 1}),
        ("codes.generate", {"codes": 3}),
        ("codes.add", {"codes": 1}),
    ]


def test_times_are_read_as_everywhere(database_url: str) -> None:
    def generate(expires_at: str) -> tuple[int, str]:
        options = ("--count", "1", "--expires-at", expires_at)
        done = claimsvc_here("codes", "generate", "spring", *options, CLAIMSVC_DATABASE_URL=database_url)
        return done.returncode, done.stdout + done.stderr

    claimsvc_here("coupon", "create", "spring", "--amount", "5", CLAIMSVC_DATABASE_URL=database_url)
    for right in ("2126-01-01T00:00:00.25z", "2126-01-01T09:00:00+09:00"):
        assert generate(right) == (0, "1 codes were added to spring.\n")
    for wrong in ("2126-W01-1T00:00:00Z", "2126-01-01", "21260101T000000Z"):
        status, told = generate(wrong)
        assert (status, "RFC 3339" in told) == (2, True)
