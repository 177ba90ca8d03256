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
    spreadsheet.write_text('code,expires_at\na b\nS-3,2126-01-01\nS-4\n,\n"\n')
    status, told = codes("upload", "spring", str(spreadsheet))
    for line in (
        "Row 2: bad-code (a code must be 1 to 64 characters of A-Z a-z 0-9 . _ - and Hangul syllables",
        "Row 3: bad-expiry S-3 (`expires_at` must be an RFC 3339 date-time with an offset, such as 2027-",
        "Row 6: bad-row (a row must be `code` or `code,expires_at`",
    ):
        assert line in told
    spreadsheet.write_text("S-4,2020-01-01T00:00:00Z\n")
    assert "Row 1: expired S-4 (`expires_at` is in the past)" in codes("upload", "spring", str(spreadsheet))[1]
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


def test_claims_and_codes_are_redeemed_and_a_redemption_is_taken_back(database_url: str, tmp_path: Path) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        done = claimsvc_here(*arguments, CLAIMSVC_DATABASE_URL=database_url)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout + done.stderr

    run("coupon", "create", "spring", "--amount", "5", "--uses", "3")
    assert '"uses": 3' in run("coupon", "show", "spring", "--json")[1]
    file = tmp_path / "codes.csv"
    file.write_text("B-1\n")
    assert run("codes", "upload", "spring", str(file), "--uses", "2")[0] == 0
    claim_id = "019b2c5e-7a31-7c42-9f0e-2d4b8a6c1e90"
    with psycopg.connect(database_url.replace("+psycopg", "")) as connection:
        connection.execute(
            "INSERT INTO user_claims (id, coupon_name, user_id, state, claimed_at) "
            "VALUES (%s, 'spring', 'ada', 'active', now())",
            [claim_id],
        )
        connection.execute("UPDATE codes SET claim_id = %s", [claim_id])
        connection.execute("UPDATE coupons SET remaining_amount = 0")
    status, told = run("claims", "redeem", claim_id.upper())
    assert (status, told.splitlines()[0]) == (0, f"{claim_id} of spring: redeemed 1 of 2 times")
    status, told = run("codes", "redeem", "b-1", "--user", "ada")
    assert (status, told.splitlines()[0]) == (0, "B-1 of spring: redeemed")
    for command in (("claims", "redeem", claim_id), ("codes", "redeem", "B-1")):
        status, told = run(*command)
        assert (status, "was redeemed before" in told) == (1, True)
    why = ("--reason", "it fell through")
    assert run("codes", "unredeem", "B-1", *why)[0] == 0
    status, told = run("claims", "unredeem", claim_id, *why)
    assert (status, told.splitlines()[0]) == (0, f"{claim_id} of spring: redeemed 0 of 2 times")
    for arguments, expected, words in (
        (("claims", "unredeem", claim_id, *why), 1, "is not redeemed"),
        (("codes", "unredeem", "B-1", *why), 1, "B-1 is not redeemed"),
        (("codes", "unredeem", "none", *why), 1, "there is no code none"),
        (("codes", "unredeem", "B-1", "--reason", " "), 2, "must be 1 to 500 characters"),
        (("codes", "unredeem", "B-1"), 2, "--reason"),
        (("claims", "redeem", claim_id[:-1] + "1"), 1, "there is no claim"),
        (("claims", "redeem", "x"), 2, "must be a UUID"),
    ):
        status, told = run(*arguments)
        assert (status, words in " ".join(told.split())) == (expected, True), told
    status, told = run("codes", "show", "B-1")
    assert "user_id: ada" in told
    with psycopg.connect(database_url.replace("+psycopg", "")) as connection:
        audited = connection.execute(
            "SELECT action, reason FROM audit WHERE action LIKE '%redeem' ORDER BY id"
        ).fetchall()
    assert audited == [
        ("claim.redeem", ""),
        ("code.redeem", ""),
        ("code.unredeem", "it fell through"),
        ("claim.unredeem", "it fell through"),
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


def test_codes_have_a_type_and_a_benefit_of_their_own(database_url: str, tmp_path: Path) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        done = claimsvc_here(*arguments, CLAIMSVC_DATABASE_URL=database_url)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout + done.stderr

    run("coupon", "create", "spring", "--amount", "5", "--benefit", '{"percent_off": 5}')
    file = tmp_path / "codes.csv"
    file.write_text("code,type,percent_off\nB-1,vip,\nB-2,,15\nB-3,,15%\nB-4,a b,\n")
    status, told = run("codes", "upload", "spring", str(file), "--partial")
    assert status == 1
    for line in (
        "Row 3: coupon-has-benefit B-2 (the coupon has a benefit, so its codes have none of their own)",
        "Row 4: bad-benefit B-3 (a benefit must be an object with `percent_off`",
        "Row 5: bad-type B-4 (a type must be 1 to 255 characters of A-Z a-z 0-9 . _ -",
        "1 codes were added to spring.",
    ):
        assert line in told
    run("coupon", "create", "autumn", "--amount", "5")
    more = tmp_path / "codes.ndjson"
    more.write_text('{"code": "C-1", "type": "vip", "benefit": {"amount_off": 5000, "currency": "KRW"}}\n')
    assert run("codes", "upload", "autumn", str(more)) == (0, "1 codes were added to autumn.\n")
    status, told = run("codes", "show", "C-1")
    assert (status, told.splitlines()[1:3]) == (
        0,
        ["  type: vip", '  benefit: {"currency": "KRW", "amount_off": 5000}'],
    )
    shown = json.loads(run("codes", "show", "B-1", "--json")[1])
    assert (shown["type"], shown["benefit"]) == ("vip", {"percent_off": 5.0})
