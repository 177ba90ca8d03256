"""Each redemption of a claim, how often it may be redeemed, codes without regard to case, and changes to count.

Every column is new and may be left out, so the previous version keeps working. It records a redemption in `codes`
alone; see `claimsvc.postgres.redemptions`.
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

# Building an index concurrently waits for all older transactions. The service's take seconds at most.
_BUILD_TIMEOUT = "10min"
_LOWER = "code_names_lower_idx"
_IS_BROKEN = "SELECT NOT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)"


def upgrade() -> None:
    # First, because what precedes it would be committed: if the rest fails, all of this can run again.
    with op.get_context().autocommit_block():
        before = op.get_bind().execute(sa.text("SHOW lock_timeout")).scalar_one()
        op.execute(f"SET lock_timeout = '{_BUILD_TIMEOUT}'")
        if op.get_bind().execute(sa.text(_IS_BROKEN), {"name": _LOWER}).scalar():
            op.execute(f"DROP INDEX CONCURRENTLY {_LOWER}")
        op.execute(f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {_LOWER} ON code_names (lower(code))")
        op.execute(f"SET lock_timeout = '{before}'")
    # Claims lock `codes` before `campaigns`: a transaction that held both, or took them in the other order, would
    # deadlock with them.
    # NULL: as often as the coupon says. Without a check, which would read the whole table under a lock.
    op.execute("ALTER TABLE codes ADD COLUMN IF NOT EXISTS uses smallint")
    with op.get_context().autocommit_block():
        pass
    op.add_column("campaigns", sa.Column("uses", sa.SmallInteger(), nullable=False, server_default="1"))
    op.execute("ALTER TABLE campaigns ADD CONSTRAINT campaigns_uses_check CHECK (uses BETWEEN 1 AND 1000) NOT VALID")
    # Without a foreign key, whose check would lock the coupon's row, which claims update.
    op.create_table(
        "redemptions",
        sa.Column("coupon_name", sa.Text(collation="C"), nullable=False),
        sa.Column("claim_id", sa.Uuid(), nullable=False),
        # Numbers the redemptions of a claim, from 1.
        sa.Column("number", sa.SmallInteger(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("redeemed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("coupon_name", "claim_id", "number", name="redemptions_pkey"),
        sa.CheckConstraint("number >= 1", name="redemptions_number_check"),
    )
    op.create_table(
        "code_changes",
        sa.Column("coupon_type", sa.Text(collation="C")),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
    )
    # Validated without a lock that keeps claims or changes out.
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE campaigns VALIDATE CONSTRAINT campaigns_uses_check")


def downgrade() -> None:
    op.drop_table("code_changes")
    op.drop_table("redemptions")
    op.drop_column("codes", "uses")
    op.drop_constraint("campaigns_uses_check", "campaigns")
    op.drop_column("campaigns", "uses")
    op.drop_index(_LOWER, "code_names")
