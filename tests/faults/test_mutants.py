"""The suite's checks go red on a service that is really wrong, under real load; and stay green on one that is not."""

import asyncio
import random
from collections.abc import Iterator, Sequence

import psycopg
import pytest

from tests.faults.checks import DUPLICATE, FALSELY_REFUSED, IMPOSSIBLE_READ, LOST, MISCOUNTED, OVERSOLD
from tests.faults.scenario import Anywhere, Context, Row, open_context
from tests.faults.trial import Trial
from tests.support.instance import SERVICE
from tests.support.load import Plan

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60), pytest.mark.xdist_group("mutants")]

_AMOUNT = 400
_DROP_STOCK_CHECK = """
DO $$
DECLARE
    name text;
BEGIN
    SELECT conname INTO STRICT name FROM pg_constraint
    WHERE conrelid = 'coupons'::regclass AND contype = 'c' AND pg_get_constraintdef(oid) LIKE '%remaining_amount%';
    EXECUTE format('ALTER TABLE coupons DROP CONSTRAINT %I', name);
END $$
"""


class _Mutant(Anywhere):
    fault, name, quick = "0", "mutant", True

    async def run(self, context: Context, rng: random.Random) -> Row:
        raise NotImplementedError


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    with open_context(full=False, kept=tmp_path_factory.mktemp("kept")) as opened:
        yield opened


async def sell_out(context: Context, mutation: str | None = None, schema: str = "", meanwhile: str = "") -> Row:
    """Load until a coupon of 400 units has been claimed 400 times and long enough after.

    Args:
        context: where.
        mutation: of the service; see `mutant`.
        schema: what is done to the database before.
        meanwhile: what is done to it half-way, with the coupon's name as its parameter.
    """
    command = SERVICE if mutation is None else ("tests.faults.mutant", mutation, "serve")
    async with context.trial(_Mutant(), random.Random(1), command=command) as trial:
        if schema:
            administrate(trial, schema)
        coupon = await trial.cluster.create_coupon(_AMOUNT)
        async with trial.load(Plan([coupon], clients=16, repeats=0.2, reads=0.05)):
            await trial.acknowledged(_AMOUNT // 2)
            if meanwhile:
                await asyncio.to_thread(administrate, trial, meanwhile, [coupon])
            trial.fired()
            asked = len(trial.history.invocations)
            await trial.until(lambda: len(trial.history.invocations) > asked + 2 * _AMOUNT, 20)
    return trial.row


def administrate(trial: Trial, statement: str, parameters: Sequence[str] = ()) -> None:
    with psycopg.connect(trial.cluster.database_url, autocommit=True) as connection:
        changed = connection.execute(statement.encode(), parameters or None)
        assert changed.rowcount != 0


def kinds(row: Row) -> set[str]:
    return {violation.kind for violation in row.violations}


async def test_on_a_service_that_is_right_nothing_goes_red(context: Context) -> None:
    row = await sell_out(context)
    assert row.held, row.violations
    assert row.acknowledged == _AMOUNT


async def test_without_the_stock_condition_it_oversells(context: Context) -> None:
    row = await sell_out(context, "sell-without-looking", _DROP_STOCK_CHECK)
    assert row.oversold > 0


async def test_without_the_unique_index_users_get_two(context: Context) -> None:
    row = await sell_out(context, "forget-who-holds-one", "DROP INDEX user_claims_one_active_per_slot")
    assert DUPLICATE in kinds(row)
    assert row.oversold > 0


async def test_an_acknowledged_claim_that_is_deleted_is_lost(context: Context) -> None:
    # Its unit is given back too, so that the numbers agree and only the history can tell.
    row = await sell_out(
        context,
        meanwhile="WITH gone AS (DELETE FROM user_claims WHERE id = (SELECT id FROM user_claims WHERE coupon_name = %s"
        " ORDER BY claimed_at LIMIT 1) RETURNING coupon_name)"
        " UPDATE coupons SET remaining_amount = remaining_amount + 1 FROM gone WHERE name = coupon_name",
    )
    assert row.lost > 0
    assert LOST in kinds(row)


async def test_a_unit_that_is_returned_twice_is_sold_twice(context: Context) -> None:
    row = await sell_out(
        context, meanwhile="UPDATE coupons SET remaining_amount = remaining_amount + 20 WHERE name = %s"
    )
    assert kinds(row) >= {OVERSOLD, MISCOUNTED}
    assert kinds(row) <= {OVERSOLD, MISCOUNTED, IMPOSSIBLE_READ}


async def test_sold_out_that_is_told_too_early_is_a_false_refusal(context: Context) -> None:
    row = await sell_out(context, "refuse-too-early")
    assert row.falsely_refused > 0
    assert kinds(row) == {FALSELY_REFUSED}
