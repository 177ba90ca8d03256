"""Upgrading the schema while instances of the previous version claim: what they ask stays right, and nobody waits for
anybody in a circle."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files

import psycopg
import pytest
from alembic import command
from alembic.config import Config

from tests.support.databases import administrate

# The last revision of the previous version.
_PREVIOUS = "0015"
# What the previous version asks about codes; it takes `type` from `campaigns` alone.
_ASKED = (
    """
    SELECT count(*), count(claim_id) FILTER (WHERE voided_at IS NULL), count(redeemed_at), count(voided_at)
    FROM campaigns JOIN codes ON codes.coupon_name = campaigns.coupon_name
    WHERE has_codes AND type IS NOT DISTINCT FROM 'welcome'
    """,
    "SELECT DISTINCT type FROM campaigns WHERE has_codes",
    """
    SELECT DISTINCT campaigns.coupon_name, type FROM campaigns JOIN codes ON codes.coupon_name = campaigns.coupon_name
    WHERE has_codes AND claim_id IS NULL AND voided_at IS NULL AND expires_at <= now()
    LIMIT 100
    """,
)
# The order in which a claim on the full path locks the tables.
_LOCKS = (
    "SELECT name FROM coupons WHERE name = 'spring' FOR NO KEY UPDATE",
    "SELECT count(*) FROM codes WHERE coupon_name = 'spring'",
    "SELECT count(*) FROM campaigns WHERE coupon_name = 'spring'",
)


def _upgrade(database_url: str, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(files("migrations")))
    config.attributes["database_url"] = database_url
    command.upgrade(config, revision)


@contextmanager
def _claiming(database_url: str, threads: int) -> Iterator[list[BaseException]]:
    """Claim as the previous version does, in several connections, until the context is left; yields the failures."""
    failures: list[BaseException] = []
    is_over = threading.Event()

    def claim() -> None:
        try:
            with psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True) as connection:
                while not is_over.is_set():
                    with connection.transaction():
                        for statement in _LOCKS:
                            connection.execute(statement.encode())
        except psycopg.Error as error:
            failures.append(error)

    working = [threading.Thread(target=claim) for _ in range(threads)]
    for each in working:
        each.start()
    try:
        yield failures
    finally:
        is_over.set()
        for each in working:
            each.join()


def test_claims_and_the_migrations_never_wait_for_each_other_in_a_circle(empty_database_url: str) -> None:
    _upgrade(empty_database_url, _PREVIOUS)
    administrate(empty_database_url, "INSERT INTO coupons (name, amount, remaining_amount) VALUES ('spring', 9, 9)")
    administrate(empty_database_url, "INSERT INTO campaigns (coupon_name, has_codes) VALUES ('spring', true)")
    with _claiming(empty_database_url, threads=6) as failures:
        _upgrade(empty_database_url, "head")
    assert failures == []


@pytest.mark.parametrize("statement", _ASKED)
def test_what_the_previous_version_asks_about_codes_is_answered_on_this_schema(
    database_url: str, statement: str
) -> None:
    administrate(database_url, statement)
