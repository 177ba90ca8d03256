"""An index of trigrams for searching coupons by a part of their name, built concurrently with claims.

Its extension, pg_trgm, comes with PostgreSQL and is trusted: the owner of the database may create it. Where it cannot
be created, the search works without the index, in its own pool of connections, and `claimsvc doctor` says so.
"""

import logging

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0017"
branch_labels = None
depends_on = None

# Building an index concurrently waits for all older transactions. The service's take seconds at most.
_BUILD_TIMEOUT = "10min"
_INDEX = "coupons_name_trgm_idx"
_IS_BROKEN = "SELECT NOT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)"
_SCHEMA = """
SELECT quote_ident(nspname) FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace
WHERE extname = 'pg_trgm'
"""


def upgrade() -> None:
    with op.get_context().autocommit_block():
        schema = _schema_of_extension()
        if schema is None:
            return
        before = op.get_bind().execute(sa.text("SHOW lock_timeout")).scalar_one()
        op.execute(f"SET lock_timeout = '{_BUILD_TIMEOUT}'")
        if op.get_bind().execute(sa.text(_IS_BROKEN), {"name": _INDEX}).scalar():
            op.execute(f"DROP INDEX CONCURRENTLY {_INDEX}")
        # Without `fastupdate`: the claim that finds the list of pending entries full would have to sort them in.
        op.execute(
            f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {_INDEX} ON coupons USING gin (name {schema}.gin_trgm_ops) "
            "WITH (fastupdate = off)"
        )
        op.execute(f"SET lock_timeout = '{before}'")


def _schema_of_extension() -> str | None:
    """The schema of the extension, which is created if need be; None if it cannot be."""
    connection = op.get_bind()
    try:
        connection.execute(sa.text("CREATE EXTENSION IF NOT EXISTS pg_trgm"))
    except sa.exc.DBAPIError as error:
        reason = str(error.orig).partition("\n")[0]
        logging.getLogger("alembic.runtime.migration").warning("pg_trgm cannot be created: %s", reason)
        return None
    schema: str | None = connection.execute(sa.text(_SCHEMA)).scalar()
    return schema


def downgrade() -> None:
    # The extension may serve others.
    op.execute(f"DROP INDEX IF EXISTS {_INDEX}")
