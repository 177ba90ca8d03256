"""Queues that stand still, and dead letters: `claimsvc doctor` names them, on a real server."""

import re
from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest

from claimsvc.doctor import Finding, Level, examine
from claimsvc.embedded import EmbeddedServices
from tests.doctor.conftest import settings_of
from tests.support.injectors.postgres import Session, connect

_QUEUE = '{"rate_per_second": 10, "concurrency": 5, "max_wait_seconds": 60, "max_length": 100, "order": "fifo"}'


@pytest.fixture
def session(sound_database_url: str) -> Iterator[Session]:
    with connect(sound_database_url.replace("+psycopg", "")) as session:
        for name in ("spring", "autumn"):
            session.execute("INSERT INTO coupons (name, amount, remaining_amount) VALUES (%s, 9, 9)", [name])
            session.execute("INSERT INTO campaigns (coupon_name, queue) VALUES (%s, %s)", [name, _QUEUE])
            session.execute("INSERT INTO queues (coupon_name) VALUES (%s)", [name])
        yield session


def ticket(session: Session, coupon: str, place: int, seconds: float, state: str = "waiting") -> None:
    """Someone who joined so many seconds ago. No instance runs here, so nobody starts the ticket."""
    has_ended = state == "dead"
    session.execute(
        """
        INSERT INTO tickets (coupon_name, place, id, user_id, state, joined_at, ended_at)
        VALUES (%s, %s, %s, %s, %s, now() - make_interval(secs => %s), CASE WHEN %s THEN now() END)
        """,
        [coupon, place, uuid4(), f"user-{place}", state, seconds, has_ended],
    )
    if not has_ended:
        session.execute("UPDATE queues SET waiting = waiting + 1, due_at = now() WHERE coupon_name = %s", [coupon])


async def findings(sound: EmbeddedServices, url: str) -> list[Finding]:
    found = await examine(settings_of(url, sound.redis_urls))
    return [each for each in found if each.subject.startswith(("queue", "dead letters"))]


async def test_a_queue_that_stands_still_is_named_until_it_is_paused_or_goes_on(
    sound: EmbeddedServices, sound_database_url: str, session: Session
) -> None:
    assert await findings(sound, sound_database_url) == []
    ticket(session, "spring", 0, 45)
    ticket(session, "spring", 1, 5)
    ticket(session, "autumn", 0, 2)
    [finding] = await findings(sound, sound_database_url)
    assert (finding.level, finding.subject) == (Level.WRONG, "queue spring")
    assert re.fullmatch(r"2 tickets wait, the first for 4\d s, and none has been started for 4\d s", finding.found), (
        finding.found
    )
    assert "relation = 'queues'::regclass" in finding.mend
    session.execute("UPDATE queues SET paused = true WHERE coupon_name = 'spring'")
    [finding] = await findings(sound, sound_database_url)
    assert (finding.level, finding.found) == (Level.OK, "tickets wait in 2 queues, 1 of them paused")
    session.execute("UPDATE queues SET paused = false, dispatched_at = now() WHERE coupon_name = 'spring'")
    [finding] = await findings(sound, sound_database_url)
    assert finding.level is Level.OK


async def test_dead_letters_are_counted_with_their_coupons(
    sound: EmbeddedServices, sound_database_url: str, session: Session
) -> None:
    for place in range(3):
        ticket(session, "spring", place, 45, "dead")
    ticket(session, "autumn", 0, 45, "dead")
    [finding] = await findings(sound, sound_database_url)
    assert (finding.level, finding.subject) == (Level.WRONG, "dead letters")
    assert finding.found == "the service has given up the claims of 4 tickets, of autumn (1), spring (3)"
    assert "claimsvc tickets requeue" in finding.mend
    session.execute("UPDATE tickets SET state = 'left'")
    assert await findings(sound, sound_database_url) == []


async def test_the_statement_that_is_advised_names_who_holds_the_row(
    sound: EmbeddedServices, sound_database_url: str, session: Session
) -> None:
    ticket(session, "spring", 0, 45)
    [finding] = await findings(sound, sound_database_url)
    statement = finding.mend.rpartition(": ")[2]
    with psycopg.connect(sound_database_url.replace("+psycopg", "")) as holder:
        holder.execute("SELECT FROM queues WHERE coupon_name = 'spring' FOR UPDATE")
        with psycopg.connect(sound_database_url.replace("+psycopg", "")) as looker:
            pids = [pid for pid, _ in looker.execute(statement.encode()).fetchall()]
        assert holder.info.backend_pid in pids
