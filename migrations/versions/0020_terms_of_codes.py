"""A type and a benefit of a code's own, and the types that the codes of a coupon have.

Every column is new and may be left out, so the previous version keeps working. It does not show them, and counts a code
by the type of its coupon.
"""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

# Building an index concurrently waits for all older transactions. The service's take seconds at most.
_BUILD_TIMEOUT = "10min"
_INDEX = "codes_own_type_idx"
_IS_BROKEN = "SELECT NOT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)"


def upgrade() -> None:
    # IF NOT EXISTS: the columns are committed before the index is built. If that fails, all of this can run again.
    # Not `type`: joined with `campaigns`, the previous version's statements name that column alone.
    op.execute('ALTER TABLE codes ADD COLUMN IF NOT EXISTS own_type text COLLATE "C"')
    op.execute("ALTER TABLE codes ADD COLUMN IF NOT EXISTS benefit jsonb")
    op.execute('ALTER TABLE campaigns ADD COLUMN IF NOT EXISTS code_types text[] COLLATE "C"')
    with op.get_context().autocommit_block():
        before = op.get_bind().execute(sa.text("SHOW lock_timeout")).scalar_one()
        op.execute(f"SET lock_timeout = '{_BUILD_TIMEOUT}'")
        if op.get_bind().execute(sa.text(_IS_BROKEN), {"name": _INDEX}).scalar():
            op.execute(f"DROP INDEX CONCURRENTLY {_INDEX}")
        op.execute(f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {_INDEX} ON codes (own_type) WHERE own_type IS NOT NULL")
        op.execute(f"SET lock_timeout = '{before}'")


def downgrade() -> None:
    op.drop_index(_INDEX, "codes")
    op.drop_column("campaigns", "code_types")
    op.drop_column("codes", "benefit")
    op.drop_column("codes", "own_type")
