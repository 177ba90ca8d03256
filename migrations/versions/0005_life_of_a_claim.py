"""States of claims (held, cancelled, expired), and several claims per user."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# Constraints are added as NOT VALID, and 0006 validates them, so that claims continue meanwhile.
_CHECKS = {
    "user_claims_state_check": "state IN ('active', 'cancelled', 'expired')",
    "user_claims_ended_check": "(state = 'active') = (ended_at IS NULL)",
    "user_claims_slot_check": "slot BETWEEN 1 AND 1000",
}


def upgrade() -> None:
    op.add_column("user_claims", sa.Column("slot", sa.SmallInteger(), nullable=False, server_default="1"))
    op.add_column("user_claims", sa.Column("held_until", sa.DateTime(timezone=True)))
    op.add_column("user_claims", sa.Column("ended_at", sa.DateTime(timezone=True)))
    op.drop_constraint("user_claims_state_check", "user_claims", type_="check")
    for name, check in _CHECKS.items():
        op.execute(f"ALTER TABLE user_claims ADD CONSTRAINT {name} CHECK ({check}) NOT VALID")


def downgrade() -> None:
    op.execute("DELETE FROM user_claims WHERE state <> 'active'")
    for name in _CHECKS:
        op.drop_constraint(name, "user_claims", type_="check")
    op.create_check_constraint("user_claims_state_check", "user_claims", "state IN ('active')")
    for column in ("slot", "held_until", "ended_at"):
        op.drop_column("user_claims", column)
