"""`claimsvc doctor` as a program: a line for each finding, JSON for programs, and its exit status."""

import json

import pytest

from claimsvc.embedded import EmbeddedServices
from tests.doctor.conftest import settings_of, variables
from tests.support.program import claimsvc_here


@pytest.fixture
def well(sound: EmbeddedServices, sound_database_url: str) -> dict[str, str]:
    """Settings under which nothing is wrong."""
    return variables(settings_of(sound_database_url, sound.redis_urls))


def test_with_warnings_alone_the_status_is_0(well: dict[str, str]) -> None:
    told = claimsvc_here("doctor", **well)
    assert (told.returncode, told.stderr) == (0, "")
    lines = told.stdout.splitlines()
    assert {line.split()[0] for line in lines} == {"ok", "warning"}
    [shared] = [line for line in lines if "run on 127.0.0.1" in line]
    assert shared.startswith("warning  masters: ")
    assert shared.endswith(" To fix it: run each on its own machine")


def test_what_is_wrong_is_a_line_with_how_to_mend_it_and_the_status_is_1(well: dict[str, str]) -> None:
    well["CLAIMSVC_DATABASE_URL"] = "postgresql://nobody:nothing@127.0.0.1:1/none"
    told = claimsvc_here("doctor", **well)
    assert told.returncode == 1
    [line] = [line for line in told.stdout.splitlines() if line.startswith("wrong")]
    assert line.startswith("wrong    database: it cannot be used: ")
    assert "To fix it: start it, or correct CLAIMSVC_DATABASE_URL" in line
    assert "nothing" not in line, "the password"
    assert "Traceback" not in told.stderr


def test_findings_are_json_for_programs(well: dict[str, str]) -> None:
    first, _, third = well["CLAIMSVC_REDIS_URLS"].split(",")
    well["CLAIMSVC_REDIS_URLS"] = f"{first},redis://:a-secret@127.0.0.1:1,{third}"
    told = claimsvc_here("doctor", "--json", **well)
    assert told.returncode == 1
    findings = json.loads(told.stdout)
    assert all(finding.keys() == {"level", "subject", "found", "mend"} for finding in findings)
    [wrong] = [finding for finding in findings if finding["level"] == "wrong"]
    assert wrong["subject"] == "master 127.0.0.1:1"
    assert "a-secret" not in told.stdout + told.stderr


def test_wrong_settings_are_findings_too_with_status_78_and_the_database_is_checked_all_the_same(
    well: dict[str, str],
) -> None:
    well |= {"CLAIMSVC_REDIS_URLS": "redis://a,redis://b", "CLAIMSVC_WORKERS": "many"}
    told = claimsvc_here("doctor", **well)
    assert told.returncode == 78
    lines = told.stdout.splitlines()
    assert sum(line.startswith("wrong    settings: CLAIMSVC_REDIS_URLS: 2 masters") for line in lines) == 1
    assert sum(line.startswith("wrong    settings: CLAIMSVC_WORKERS: ") for line in lines) == 1
    assert any(line.startswith("ok       database: PostgreSQL") for line in lines)
    assert any(line.startswith("ok       migrations: ") for line in lines)


def test_without_any_settings_each_missing_one_is_told(well: dict[str, str]) -> None:
    told = claimsvc_here("doctor")
    assert told.returncode == 78
    assert "settings: CLAIMSVC_DATABASE_URL is not set" in told.stdout
    assert "settings: CLAIMSVC_REDIS_URLS is not set" in told.stdout


@pytest.mark.parametrize(
    ("changes", "level", "found"),
    [
        ({"CLAIMSVC_FAILPOINTS": "commit:error:0.5"}, "wrong", "CLAIMSVC_FAILPOINTS makes claims fail on purpose"),
        ({"CLAIMSVC_ADMIN_KEYS": ""}, "warning", "CLAIMSVC_ADMIN_KEYS is empty"),
        ({"CLAIMSVC_LOCK_TTL_SECONDS": "3"}, "warning", "its lock expires after 3 s"),
        ({"CLAIMSVC_CLAIM_TIMEOUT_SECONDS": "1"}, "warning", "times out before it has made all its attempts"),
    ],
)
def test_settings_that_are_wrong_together_are_found(
    well: dict[str, str], changes: dict[str, str], level: str, found: str
) -> None:
    told = claimsvc_here("doctor", "--json", **{**well, **changes})
    assert told.returncode == (level == "wrong")
    [finding] = [each for each in json.loads(told.stdout) if found in each["found"]]
    assert (finding["level"], finding["subject"], bool(finding["mend"])) == (level, "settings", True)
