"""`claimsvc sweep` and `purge`: what they print, what they return, and what they leave behind."""

import asyncio
import json

import psycopg
import pytest
import redis

from tests.support.audit import trail
from tests.support.program import claimsvc_here

_COUPON = """
INSERT INTO coupons (name, amount, remaining_amount, plain_until) VALUES ('spring', 5, 3, 'epoch');
INSERT INTO campaigns (coupon_name, ends_at) VALUES ('spring', now() - interval '40 days');
INSERT INTO user_claims (id, coupon_name, user_id, state, claimed_at, held_until) VALUES
    (gen_random_uuid(), 'spring', 'ada', 'active', now(), now()),
    (gen_random_uuid(), 'spring', 'ben', 'active', now(), NULL);
INSERT INTO idempotent_answers (caller, key, fingerprint, answer, request_id, kept_at)
    VALUES ('open', 'old', '', '{}', 'r', now() - interval '25 hours'), ('open', 'new', '', '{}', 'r', now());
"""


@pytest.fixture
def variables(redis_urls: tuple[str, ...], database_url: str) -> dict[str, str]:
    ask(database_url, _COUPON)
    return {
        "CLAIMSVC_DATABASE_URL": database_url,
        "CLAIMSVC_REDIS_URLS": ",".join(redis_urls),
        "CLAIMSVC_PURGE_AFTER_DAYS": "30",
    }


def ask(database_url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def test_sweeping_says_how_many_holds_were_over(variables: dict[str, str], database_url: str) -> None:
    told = claimsvc_here("sweep", **variables)
    assert (told.returncode, told.stdout, told.stderr) == (0, "1 holds had expired; their units were returned.\n", "")
    assert ask(database_url, "SELECT remaining_amount FROM coupons") == [(4,)]


def test_purging_is_counted_first_and_then_done_and_audited(variables: dict[str, str], database_url: str) -> None:
    purged = {"answers": 1, "list_entries": 0, "coupons": 1, "claims": 2, "codes": 0}
    purged |= {"tickets": 0, "unfinished_tickets": 0}
    told = claimsvc_here("purge", "--dry-run", "--json", **variables)
    assert (told.returncode, json.loads(told.stdout)) == (0, {"dry_run": True, **purged})
    assert ask(database_url, "SELECT count(*) FROM user_claims") == [(2,)]
    told = claimsvc_here("purge", "--json", **variables)
    assert (told.returncode, json.loads(told.stdout), told.stderr) == (0, {"dry_run": False, **purged}, "")
    assert ask(database_url, "SELECT name FROM coupons UNION SELECT key FROM idempotent_answers") == [("new",)]
    [entry] = asyncio.run(trail(database_url.replace("postgresql:", "postgresql+psycopg:")))
    assert (entry.action, entry.details["claims"], entry.details["is_gone"]) == ("coupon.purge", 2, True)
    assert entry.actor.startswith("os-user:")


def test_coupons_stay_unless_it_is_said_for_how_long(variables: dict[str, str], database_url: str) -> None:
    told = claimsvc_here("purge", **{**variables, "CLAIMSVC_PURGE_AFTER_DAYS": "0"})
    assert told.returncode == 0
    assert told.stdout.splitlines() == [
        "Deleted 1 responses, 0 list entries, 0 coupons, 0 claims, 0 codes and 0 tickets.",
        "Coupons are kept forever: CLAIMSVC_PURGE_AFTER_DAYS is 0.",
    ]
    assert ask(database_url, "SELECT count(*) FROM user_claims") == [(2,)]


@pytest.mark.parametrize("command", ["sweep", "purge", "reconcile"])
def test_a_job_that_another_instance_is_at_is_not_done(
    variables: dict[str, str], database_url: str, redis_urls: tuple[str, ...], command: str
) -> None:
    for url in redis_urls:
        with redis.Redis.from_url(url) as master:
            master.set(f"claim:coupon:job:{command}", "web-1:42:0a1b2c3d/a-token", px=20_000)
    told = claimsvc_here(command, **variables)
    assert (told.returncode, told.stdout) == (1, "")
    assert "nothing was done here" in told.stderr
    assert ask(database_url, "SELECT count(*) FROM user_claims WHERE state = 'active'") == [(2,)]
    told = claimsvc_here("locks", **variables)
    assert (told.returncode, "job" in told.stdout) == (0, False)
