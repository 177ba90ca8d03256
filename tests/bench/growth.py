"""Coupons and claims made in bulk, inside the database."""

from typing import LiteralString

import psycopg

from tests.bench.requests import USER_DIGITS, USER_FACTOR, USER_MODULUS

_BATCH = 1_000_000

# Whatever columns a coupon has, by migrations to come as well: all but the name are the model's.
_CLONE = """
INSERT INTO coupons
SELECT (jsonb_populate_record(model, jsonb_build_object('name', left(model.name, -6) || lpad(n::text, 6, '0')))).*
FROM coupons AS model CROSS JOIN generate_series(1, %(copies)s) AS n
WHERE model.name = %(name)s
RETURNING name
"""

# Sorted, because an index far larger than PostgreSQL's cache takes a sorted batch several times faster.
_FILL: LiteralString = """
INSERT INTO user_claims (id, coupon_name, user_id, state, claimed_at)
SELECT {make_id}, %(coupon_name)s, user_id, 'active', clock_timestamp()
FROM (
    SELECT lpad((n * %(factor)s %% %(modulus)s)::text, %(digits)s, '0') COLLATE "C" AS user_id
    FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n
    ORDER BY user_id
) AS claimant
"""

_TAKE = "UPDATE coupons SET remaining_amount = remaining_amount - %(count)s WHERE name = %(coupon_name)s"


def clone_coupon(connection: psycopg.Connection, name: str, copies: int) -> list[str]:
    """Make more coupons like one whose name ends in six digits, and return their names."""
    return [row[0] for row in connection.execute(_CLONE, {"name": name, "copies": copies})]


def fill_claims(connection: psycopg.Connection, coupon_name: str, count: int) -> None:
    """Give a coupon the claims of users 0 to count - 1, numbered as the load generator numbers them.

    Args:
        connection: a superuser's, which commits by itself.
    """
    # PostgreSQL looks up the coupon once for each row otherwise, and remembers each row until the end.
    connection.execute("SET session_replication_role = replica")
    connection.execute("SET work_mem = '256MB'")
    # As the service makes them, in order of time; older servers can make random ones only.
    make_id: LiteralString = "uuidv7()" if connection.info.server_version >= 180_000 else "gen_random_uuid()"
    for first in range(0, count, _BATCH):
        connection.execute(
            _FILL.format(make_id=make_id),
            {
                "coupon_name": coupon_name,
                "factor": USER_FACTOR,
                "modulus": USER_MODULUS,
                "digits": USER_DIGITS,
                "first": first,
                "last": min(first + _BATCH, count) - 1,
            },
        )
    connection.execute(_TAKE, {"coupon_name": coupon_name, "count": count})
    # So that this work is over when measuring begins.
    connection.execute("VACUUM (ANALYZE) user_claims")
    connection.execute("CHECKPOINT")
