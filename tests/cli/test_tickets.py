"""`claimsvc tickets` and `claimsvc dead-letters`: what they print, return and change."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from uuid_utils.compat import uuid7

from claimsvc.config import Settings
from claimsvc.connect import open_repositories
from claimsvc.domain import JoinRequest
from tests.support.audit import trail
from tests.support.databases import administrate
from tests.support.program import claimsvc_here

Run = Callable[..., tuple[int, str]]

DEAD = "019b2c5e-7a31-7c42-9f0e-2d4b8a6c1e90"
UNKNOWN = "019b2c5e-7a31-7c42-9f0e-2d4b8a6c1e91"


@pytest.fixture
def claimsvc(database_url: str) -> Run:
    """Commands on a database with two coupons: ann waits for `spring`, and eve's ticket for it is dead."""

    def run(*arguments: str) -> tuple[int, str]:
        done = claimsvc_here(*arguments, CLAIMSVC_DATABASE_URL=database_url)
        return done.returncode, done.stdout + done.stderr

    for name in ("spring", "plain"):
        assert run("coupon", "create", name, "--amount", "5")[0] == 0
    asyncio.run(_join(database_url, "ann"))
    administrate(
        database_url,
        f"""
        INSERT INTO tickets (coupon_name, place, id, user_id, state, joined_at, started_at, ended_at, tries)
            VALUES ('spring', 1000, '{DEAD}', 'eve', 'dead', '2026-01-01', '2026-01-02', '2026-01-03', 12)
        """,
    )
    return run


async def _join(database_url: str, user_id: str) -> None:
    async with open_repositories(Settings(database_url=database_url, redis_urls=("redis://unused",))) as storage:
        await storage.tickets.join("spring", [JoinRequest(str(uuid7()), user_id)])


def listed(claimsvc: Run, *options: str) -> Any:
    status, told = claimsvc("tickets", "list", "spring", "--json", *options)
    assert status == 0
    return json.loads(told)


def test_queues_are_printed_for_people_and_for_programs(claimsvc: Run) -> None:
    status, told = claimsvc("tickets", "queues", "--json")
    [queue] = json.loads(told)["items"]
    assert (status, queue["coupon_name"], queue["waiting"], queue["dead"]) == (0, "spring", 1, 1)
    status, told = claimsvc("tickets", "queues")
    [row] = [line.split() for line in told.splitlines() if line.startswith("spring")]
    assert (status, row[:5]) == (0, ["spring", "1", "0", "1", "0.0/s"])


def test_tickets_are_listed_in_the_order_in_which_they_joined(claimsvc: Run) -> None:
    assert [(each["user_id"], each["state"], each["tries"]) for each in listed(claimsvc)] == [
        ("ann", "waiting", 0),
        ("eve", "dead", 12),
    ]
    assert [each["user_id"] for each in listed(claimsvc, "--state", "dead", "--state", "left")] == ["eve"]
    assert [each["user_id"] for each in listed(claimsvc, "--limit", "1")] == ["ann"]
    status, told = claimsvc("tickets", "list", "spring")
    assert (status, "ann" in told, DEAD in told) == (0, True, True)
    assert claimsvc("tickets", "list", "plain") == (0, "There is no such ticket.\n")
    status, told = claimsvc("tickets", "list", "none")
    assert (status, told) == (1, "error: there is no coupon none\n")
    assert claimsvc("tickets", "list", "spring", "--state", "asleep")[0] == 2
    assert claimsvc("tickets", "list", "a  b")[0] == 2


def test_a_ticket_is_shown_with_its_place_or_its_end(claimsvc: Run) -> None:
    [ann] = listed(claimsvc, "--state", "waiting")
    status, told = claimsvc("tickets", "show", ann["id"], "--json")
    shown = json.loads(told)
    assert (status, shown["position"], shown["ahead"], shown["outcome"]) == (0, 1, 0, None)
    assert ann.items() <= shown.items()
    status, told = claimsvc("tickets", "show", DEAD.upper())
    assert (status, told.splitlines()[0]) == (0, f"{DEAD} of spring: dead")
    assert "  tries: 12\n" in told
    status, told = claimsvc("tickets", "show", UNKNOWN)
    assert (status, "there is no ticket" in told.lower()) == (1, True)
    status, told = claimsvc("tickets", "show", "none")
    assert (status, "must be a UUID" in told) == (2, True)


def test_a_claimed_and_a_refused_ticket_are_shown_with_what_became_of_them(claimsvc: Run, database_url: str) -> None:
    administrate(
        database_url,
        f"""
        INSERT INTO user_claims (id, coupon_name, user_id, state, claimed_at) VALUES
            ('{UNKNOWN}', 'spring', 'bob', 'active', '2026-01-01');
        INSERT INTO tickets (coupon_name, place, id, user_id, state, joined_at, ended_at, claim_id, refusal) VALUES
            ('spring', 2000, gen_random_uuid(), 'bob', 'claimed', '2026-01-01', now(), '{UNKNOWN}', NULL),
            ('spring', 2001, gen_random_uuid(), 'zoe', 'refused', '2026-01-01', now(), NULL,
                '{{"kind": "sold-out", "value": {{}}}}')
        """,
    )
    bob, zoe = listed(claimsvc, "--state", "claimed", "--state", "refused")
    assert json.loads(claimsvc("tickets", "show", bob["id"], "--json")[1])["outcome"]["claim"]["id"] == UNKNOWN
    problem = json.loads(claimsvc("tickets", "show", zoe["id"], "--json")[1])["outcome"]["problem"]
    assert (problem["type"], problem["status"]) == ("/problems/sold-out", 409)
    assert f"  claim: {UNKNOWN}\n" in claimsvc("tickets", "show", bob["id"])[1]
    assert "  refused: sold-out\n" in claimsvc("tickets", "show", zoe["id"])[1]


def test_a_queue_is_paused_and_goes_on(claimsvc: Run, database_url: str) -> None:
    reason = ("--reason", "the shop is down")
    assert claimsvc("tickets", "pause", "spring", *reason) == (0, "The queue of spring is paused; 1 wait.\n")
    [queue] = json.loads(claimsvc("tickets", "queues", "--json")[1])["items"]
    assert (queue["paused"], queue["stopped"]) == (True, "paused")
    assert claimsvc("tickets", "pause", "spring", *reason)[0] == 0
    assert claimsvc("tickets", "resume", "spring", *reason) == (0, "The queue of spring is not paused; 1 wait.\n")
    assert claimsvc("tickets", "pause", "none", *reason)[0] == 1
    assert claimsvc("tickets", "pause", "spring")[0] == 2
    assert claimsvc("tickets", "pause", "spring", "--reason", "two\nlines")[0] == 2
    entries = asyncio.run(trail(database_url))
    assert [(each.action, each.reason) for each in entries[:2]] == [
        ("queue.resume", "the shop is down"),
        ("queue.pause", "the shop is down"),
    ]


def test_dead_letters_are_listed_and_tried_again_once(claimsvc: Run) -> None:
    status, told = claimsvc("dead-letters", "--json")
    [letter] = json.loads(told)
    assert (status, letter["id"], letter["kind"], letter["coupon_name"]) == (0, DEAD, "ticket", "spring")
    status, told = claimsvc("dead-letters")
    assert (status, DEAD in told, "claimsvc tickets requeue" in told) == (0, True, True)

    reason = ("--reason", "PostgreSQL is back")
    assert claimsvc("tickets", "requeue", DEAD, *reason) == (0, f"{DEAD} of spring is tried again.\n")
    assert [each["state"] for each in listed(claimsvc)] == ["waiting", "started"]
    status, told = claimsvc("tickets", "requeue", DEAD, *reason)
    assert (status, "is not a dead letter" in told) == (1, True)
    assert claimsvc("tickets", "requeue", UNKNOWN, *reason)[0] == 1
    assert claimsvc("dead-letters") == (0, "There are no dead letters.\n")
    assert claimsvc("dead-letters", "--json") == (0, "[]\n")
    status, told = claimsvc("audit", "--subject-type", "ticket", "--subject", DEAD.upper(), "--json")
    assert [(each["action"], each["reason"]) for each in json.loads(told)] == [("ticket.requeue", "PostgreSQL is back")]


def test_a_dead_letter_whose_user_waits_again_can_only_be_discarded(claimsvc: Run, database_url: str) -> None:
    asyncio.run(_join(database_url, "eve"))
    status, told = claimsvc("tickets", "requeue", DEAD, "--reason", "it is back")
    assert (status, "waits again; discard it" in told) == (1, True)
    assert claimsvc("tickets", "discard", DEAD, "--reason", "eve waits again", "--yes")[0] == 0
    assert [each["state"] for each in listed(claimsvc)] == ["waiting", "waiting", "left"]


def test_a_dead_letter_is_discarded_only_by_somebody_who_means_it(claimsvc: Run) -> None:
    discard = ("tickets", "discard", DEAD, "--reason", "too late")
    status, told = claimsvc(*discard)
    assert (status, "pass --yes" in told) == (2, True)
    assert claimsvc(*discard, "--yes") == (0, f"{DEAD} of spring is discarded.\n")
    assert [each["state"] for each in listed(claimsvc)] == ["waiting", "left"]
    assert claimsvc(*discard, "--yes")[0] == 1
