"""The schema: what migrates it, and what it must always be."""

import asyncio
import re
import sys
from importlib.resources import files

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from claimsvc.errors import UnavailableError
from claimsvc.postgres.claiming.code_pool import FREE_CODES, GIVE_CODES, SETTLE_CODES
from claimsvc.postgres.claiming.fast_path import _ADMIT, _SELL
from claimsvc.postgres.claiming.ticket_ends import _END, _LOCK
from claimsvc.postgres.migrations import newest_revision
from claimsvc.postgres.tables import metadata
from claimsvc.postgres.tickets.joining import _JOIN
from claimsvc.postgres.tickets.joining_all import _JOIN_ALL
from tests.support.databases import administrate
from tests.support.storage import open_storage


def test_the_migrations_make_exactly_the_tables_that_the_code_declares(database_url: str) -> None:
    engine = create_engine(database_url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_every_unique_key_contains_the_coupon_so_that_tables_can_be_distributed_by_it(database_url: str) -> None:
    keys = administrate(
        database_url,
        """
        SELECT indexrelid::regclass::text, array_agg(attname::text) FROM pg_index
        JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey::int[])
        WHERE indisunique AND indrelid = ANY (
            ARRAY['coupons', 'user_claims', 'queues', 'tickets', 'ticket_blocks']::regclass[]
        ) GROUP BY 1
        """,
    )
    assert len(keys) == 7
    for name, columns in keys:
        assert isinstance(columns, list)
        assert {"name", "coupon_name"} & set(columns), f"{name} is unique without the coupon"


async def test_several_instances_may_migrate_an_empty_database_at_once(empty_database_url: str) -> None:
    program = "import sys; from claimsvc.postgres import migrate; migrate(sys.argv[1])"
    instances = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", program, empty_database_url) for _ in range(4)
    ]
    assert [await instance.wait() for instance in instances] == [0, 0, 0, 0]
    async with open_storage(empty_database_url) as (storage, _):
        await storage.check_schema()


async def test_a_database_without_the_schema_is_told_apart_from_one_that_is_down(empty_database_url: str) -> None:
    async with open_storage(empty_database_url) as (storage, _):
        with pytest.raises(UnavailableError):
            await storage.check_schema()


async def test_a_schema_of_another_version_is_named_with_what_to_do(database_url: str) -> None:
    administrate(database_url, "UPDATE alembic_version SET version_num = '0000'")
    async with open_storage(database_url) as (storage, _):
        with pytest.raises(UnavailableError, match=r"0000.*claimsvc migrate"):
            await storage.check_schema()


@pytest.mark.parametrize("rows", [0, 20_000])
def test_admission_finds_every_claim_by_one_look_up_whatever_the_table_held_when_it_was_planned(
    database_url: str, rows: int
) -> None:
    """A plan that scans the coupon's claims is quick at first, and slower with every claim."""
    statement = _numbered(_ADMIT, "claim_ids", "coupon_names", "user_ids", "fenced_names")
    sale = _numbered(_SELL, "units", "coupon_name", "claim_ids", "user_ids")
    options = "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off"
    with psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True, options=options) as connection:
        connection.execute("INSERT INTO coupons (name, amount, remaining_amount) VALUES ('spring', 100000, 80000)")
        connection.execute(
            "INSERT INTO user_claims SELECT gen_random_uuid(), 'spring', 'u' || i, 'active', now() "
            "FROM generate_series(1, %s) AS i",
            [rows],
        )
        connection.execute("ANALYZE" if rows else "SELECT 1")
        connection.execute(f"PREPARE admit (text, text, text, text) AS {statement}")
        connection.execute(f"PREPARE sell (int, text, text, text) AS {sale}")
        plan = "\n".join(row[0] for row in connection.execute("EXPLAIN EXECUTE admit ('', '', '', '')"))
        sale_plan = "\n".join(row[0] for row in connection.execute("EXPLAIN EXECUTE sell (1, '', '', '')"))
    assert "Index Scan using user_claims_one_active_per_slot" in plan
    assert "Index Cond: ((coupon_name = attempt" in plan
    assert "Index Scan using coupons_pkey" in sale_plan
    assert "Seq Scan" not in plan + sale_plan


@pytest.mark.parametrize("rows", [0, 20_000])
def test_the_next_code_is_found_by_one_look_up_whatever_the_table_held_when_it_was_planned(
    database_url: str, rows: int
) -> None:
    free, give = _numbered(FREE_CODES, "names", "counts"), _numbered(GIVE_CODES, "names", "codes", "ids", "units")
    options = "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off"
    with psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True, options=options) as connection:
        connection.execute("INSERT INTO coupons (name, amount, remaining_amount) VALUES ('spring', 100000, 80000)")
        connection.execute(
            "INSERT INTO codes (coupon_name, code) SELECT 'spring', 'C-' || i FROM generate_series(1, %s) AS i", [rows]
        )
        connection.execute("ANALYZE" if rows else "SELECT 1")
        connection.execute(f"PREPARE free (text[], int[]) AS {free}")
        connection.execute(f"PREPARE give (text[], text[], uuid[], int) AS {give}")
        plan = "\n".join(row[0] for row in connection.execute("EXPLAIN EXECUTE free ('{}', '{}')"))
        connection.execute(f"PREPARE settle (text[]) AS {_numbered(SETTLE_CODES, 'coupon_names')}")
        settling = "\n".join(row[0] for row in connection.execute("EXPLAIN EXECUTE settle ('{}')"))
        giving = "\n".join(row[0] for row in connection.execute("EXPLAIN EXECUTE give ('{}', '{}', '{}', 1)"))
    assert "Index Scan using codes_free_idx" in plan
    assert "Sort" not in plan
    assert "Index Scan using codes_pkey" in giving
    assert "using codes_expiry_idx" in settling
    assert "using codes_free_idx" not in settling + giving
    assert "Seq Scan" not in plan + giving + settling


@pytest.mark.parametrize("rows", [0, 20_000])
def test_joining_and_the_ends_of_tickets_look_up_the_coupon_whatever_the_tables_held_when_they_were_planned(
    database_url: str, rows: int
) -> None:
    join = _numbered(_JOIN, "coupon_name", "user_ids", "ids", "options", "in_doubt", "are_eligible")
    join_all = _numbered(_JOIN_ALL, "coupon_name", "user_ids", "ids", "options", "size")
    lock = _numbered(_LOCK, "names", "places")
    end = _numbered(_END, "names", "places", "leases", "states", "claims", "refusals", "count")
    options = "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off"
    with psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True, options=options) as connection:
        connection.execute("INSERT INTO coupons (name, amount, remaining_amount) VALUES ('spring', 100000, 100000)")
        connection.execute(
            "INSERT INTO tickets (coupon_name, place, id, user_id, joined_at, state, ended_at)"
            " SELECT 'spring', i, gen_random_uuid(), 'u' || i, now(), CASE WHEN mod(i, 2) = 0 THEN 'waiting'"
            " ELSE 'left' END, CASE WHEN mod(i, 2) = 1 THEN now() END FROM generate_series(1, %s) AS i",
            [rows],
        )
        connection.execute("ANALYZE" if rows else "SELECT 1")
        connection.execute(f"PREPARE join_ (text, text[], uuid[], jsonb[], bool, bool[]) AS {join}")
        connection.execute(f"PREPARE join_all_ (text, text, text, text, int) AS {join_all}")
        connection.execute(f"PREPARE lock_ (text[], bigint[]) AS {lock}")
        connection.execute(f"PREPARE end_ (text[], bigint[], uuid[], text[], uuid[], jsonb[], int) AS {end}")
        joining, joining_all = (
            "\n".join(row[0] for row in connection.execute(f"EXPLAIN EXECUTE {statement}"))
            for statement in ("join_ ('', '{}', '{}', '{}', false, '{}')", "join_all_ ('', '', '', '', 1)")
        )
        ending = "\n".join(
            row[0]
            for statement in ("lock_ ('{}', '{}')", "end_ ('{}', '{}', '{}', '{}', '{}', '{}', 1)")
            for row in connection.execute(f"EXPLAIN EXECUTE {statement}")
        )
    assert "tickets_one_active_per_user" in joining
    for each in (joining, joining_all):
        assert "tickets_started_idx" in each
        assert "user_claims_one_active_per_slot" in each
    assert ending.count("tickets_pkey") == 2
    assert "Seq Scan" not in joining + joining_all + ending


def _numbered(statement: str, *names: str) -> str:
    """The statement with its parameters by number, as PREPARE wants them."""
    numbers = {name: f"${number}" for number, name in enumerate(names, 1)}
    return re.sub(r"%\((\w+)\)s", lambda name: numbers[name[1]], statement)


def test_the_newest_revision_is_the_head_that_alembic_finds() -> None:
    config = Config()
    config.set_main_option("script_location", str(files("migrations")))
    assert newest_revision() == ScriptDirectory.from_config(config).get_current_head()
