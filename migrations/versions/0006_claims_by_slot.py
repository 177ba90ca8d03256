"""The indexes for states of claims, built concurrently with claims. Indexes of an interrupted run are rebuilt."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# Building an index concurrently waits for all older transactions. The service's take seconds at most.
_BUILD_TIMEOUT = "10min"
_INDEXES = {
    "user_claims_one_active_per_slot": "UNIQUE INDEX CONCURRENTLY {} ON user_claims (coupon_name, user_id, slot) "
    "WHERE state = 'active'",
    "user_claims_held_idx": "INDEX CONCURRENTLY {} ON user_claims (coupon_name, held_until) "
    "WHERE held_until IS NOT NULL AND state = 'active'",
    "user_claims_ended_idx": "INDEX CONCURRENTLY {} ON user_claims (coupon_name, user_id) WHERE state <> 'active'",
}
_IS_BROKEN = "SELECT NOT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        before = op.get_bind().execute(sa.text("SHOW lock_timeout")).scalar_one()
        op.execute(f"SET lock_timeout = '{_BUILD_TIMEOUT}'")
        for check in ("state", "ended", "slot"):
            op.execute(f"ALTER TABLE user_claims VALIDATE CONSTRAINT user_claims_{check}_check")
        for name, index in _INDEXES.items():
            if op.get_bind().execute(sa.text(_IS_BROKEN), {"name": name}).scalar():
                op.execute(f"DROP INDEX CONCURRENTLY {name}")
            op.execute("CREATE " + index.format(f"IF NOT EXISTS {name}"))
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS user_claims_one_active_per_user")
        op.execute(f"SET lock_timeout = '{before}'")


def downgrade() -> None:
    for name in _INDEXES:
        op.drop_index(name, "user_claims")
    op.create_index(
        "user_claims_one_active_per_user",
        "user_claims",
        ["coupon_name", "user_id"],
        unique=True,
        postgresql_where=sa.text("state = 'active'"),
    )
