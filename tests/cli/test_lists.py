"""`claimsvc lists`."""

import json
from pathlib import Path

import psycopg
import pytest

from tests.support.program import claimsvc_here


@pytest.fixture
def spring(database_url: str) -> dict[str, str]:
    settings = {"CLAIMSVC_DATABASE_URL": database_url}
    assert claimsvc_here("coupon", "create", "spring", "--amount", "5", **settings).returncode == 0
    return settings


def test_lists_are_loaded_from_files_and_taken_away(spring: dict[str, str], database_url: str, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("city,user_id\nSeoul,ann\nBusan,bob\n")
    (tmp_path / "banned").write_text("eve\n")
    told = claimsvc_here("lists", "load", "spring", "allow", str(tmp_path / "users.csv"), **spring)
    assert (told.returncode, told.stdout) == (0, "spring has a list of 2 users to allow.\n")
    told = claimsvc_here("lists", "load", "spring", "deny", str(tmp_path / "banned"), **spring)
    assert (told.returncode, told.stdout) == (0, "spring has a list of 1 users to deny.\n")
    told = claimsvc_here("lists", "remove", "spring", "deny", **spring)
    assert (told.returncode, told.stdout) == (0, "spring has no list to deny.\n")
    with psycopg.connect(database_url.replace("+psycopg", "")) as connection:
        found = connection.execute("SELECT kind, user_id FROM eligibility_lists ORDER BY user_id").fetchall()
        actors = connection.execute("SELECT DISTINCT split_part(actor, ':', 1) FROM audit").fetchall()
    assert found == [("allow", "ann"), ("allow", "bob")]
    assert actors == [("os-user",)]


def test_what_cannot_be_loaded_is_told_and_changes_nothing(spring: dict[str, str], tmp_path: Path) -> None:
    bad = tmp_path / "bad.ndjson"
    bad.write_text('{"user_id": "ann"}\nann\n')
    told = claimsvc_here("lists", "load", "spring", "allow", str(bad), **spring)
    assert told.returncode == 1
    assert "nothing was changed" in told.stderr
    assert "Line 2: the line must be an object" in told.stderr
    told = claimsvc_here("lists", "load", "winter", "allow", str(bad), **spring)
    assert (told.returncode, "there is no coupon winter" in told.stderr) == (1, True)
    assert claimsvc_here("lists", "load", "spring", "allow", str(tmp_path / "none"), **spring).returncode == 2


def test_rules_are_set_and_taken_away(spring: dict[str, str]) -> None:
    told = claimsvc_here("coupon", "change", "spring", "--rules", '{"holds": ["welcome"]}', **spring)
    assert told.returncode == 0, told.stderr
    shown = json.loads(claimsvc_here("coupon", "show", "spring", "--json", **spring).stdout)
    assert shown["rules"] == {"holds": ["welcome"]}, "as over HTTP"
    assert claimsvc_here("coupon", "change", "spring", "--rules", "none", **spring).returncode == 0
    assert json.loads(claimsvc_here("coupon", "show", "spring", "--json", **spring).stdout)["rules"] is None
    told = claimsvc_here("coupon", "change", "spring", "--rules", '{"holds": 5}', **spring)
    assert (told.returncode, "--rules" in told.stderr) == (2, True)
