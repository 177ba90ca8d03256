"""The checks of tickets go red on a service that is really wrong, under load, and stay green on one that is not."""

import asyncio
import random
from collections.abc import Iterator, Mapping

import psycopg
import pytest

from tests.faults.checks import FALSELY_REFUSED, LOST, PHANTOM
from tests.faults.scenario import Anywhere, Context, Row, open_context
from tests.faults.ticket_checks import PLACE_GREW, REVIVED, TOO_FAST, TOO_LONG, TOO_MANY_AT_ONCE
from tests.support.instance import SERVICE
from tests.support.load import Plan
from tests.support.load_tickets import QueuePlan

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60), pytest.mark.xdist_group("mutants")]

_QUEUE = {"rate_per_second": 40, "concurrency": 40, "max_wait_seconds": 3600, "max_length": 30}
_JOINS = 100


class _Mutant(Anywhere):
    fault, name, quick = "0", "mutant", True

    async def run(self, context: Context, rng: random.Random) -> Row:
        raise NotImplementedError


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    with open_context(full=False, kept=tmp_path_factory.mktemp("kept")) as opened:
        yield opened


async def wait_in_line(
    context: Context, mutation: str | None = None, queue: Mapping[str, int] | None = None, afterwards: str = ""
) -> Row:
    """Load until 100 have joined a queue.

    Args:
        context: where.
        mutation: of the service; see `mutant`.
        queue: what is other than usual.
        afterwards: what is done to the database when nobody waits any more.
    """
    command = SERVICE if mutation is None else ("tests.faults.mutant", mutation, "serve")
    async with context.trial(_Mutant(), random.Random(1), command=command) as trial:
        coupon = await trial.cluster.create_coupon(10_000, queue={**_QUEUE, **(queue or {})})
        joins = QueuePlan([coupon], polls=1.0, leaves=0.0)
        async with trial.load(Plan([], queues=joins, waits=1.0, clients=16, per_second=400.0)):
            await trial.joined(_JOINS)
            trial.fired()
        if afterwards:
            await trial.all_have_ended()
            await asyncio.to_thread(_administrate, trial.cluster.database_url, afterwards)
    return trial.row


def _administrate(database_url: str, statement: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        changed = connection.execute(statement.encode())
        assert changed.rowcount == 1


def kinds(row: Row) -> set[str]:
    return {violation.kind for violation in row.violations}


async def test_on_a_service_that_is_right_nothing_goes_red(context: Context) -> None:
    row = await wait_in_line(context)
    assert row.held, row.violations
    assert row.tickets >= _JOINS
    assert row.starts >= row.tickets


async def test_a_service_that_has_no_pace_is_too_fast(context: Context) -> None:
    assert kinds(await wait_in_line(context, "forget-the-pace", {"rate_per_second": 5})) == {TOO_FAST}


async def test_a_service_that_does_not_count_what_is_under_way_has_too_many(context: Context) -> None:
    row = await wait_in_line(context, "forget-the-concurrency", {"concurrency": 1, "rate_per_second": 200})
    assert kinds(row) == {TOO_MANY_AT_ONCE}


async def test_a_queue_without_a_limit_is_too_long(context: Context) -> None:
    assert kinds(await wait_in_line(context, "forget-the-length")) == {TOO_LONG}


async def test_a_ticket_that_was_never_stored_is_lost(context: Context) -> None:
    assert LOST in kinds(await wait_in_line(context, "forget-some-joins"))


async def test_places_that_are_told_at_random_grow(context: Context) -> None:
    assert kinds(await wait_in_line(context, "tell-any-place")) == {PLACE_GREW}


async def test_an_end_that_is_changed_and_a_claim_that_is_left_without_its_ticket_are_seen(context: Context) -> None:
    row = await wait_in_line(
        context,
        afterwards="UPDATE tickets SET state = 'refused', claim_id = NULL WHERE (coupon_name, place) ="
        " (SELECT coupon_name, min(place) FROM tickets WHERE state = 'claimed' GROUP BY coupon_name)",
    )
    assert {REVIVED, PHANTOM} <= kinds(row) <= {REVIVED, PHANTOM, LOST, FALSELY_REFUSED}


async def test_a_ticket_that_is_deleted_is_lost(context: Context) -> None:
    row = await wait_in_line(
        context,
        afterwards="DELETE FROM tickets WHERE (coupon_name, place) ="
        " (SELECT coupon_name, min(place) FROM tickets WHERE state = 'claimed' GROUP BY coupon_name)",
    )
    assert {LOST, PHANTOM} <= kinds(row)
