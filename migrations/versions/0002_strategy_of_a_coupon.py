"""The strategy that admits a coupon's claims."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("coupons", sa.Column("strategy", sa.Text(), nullable=False, server_default="redlock"))
    op.create_check_constraint("coupons_strategy_check", "coupons", "strategy IN ('redlock', 'row_lock', 'counter')")


def downgrade() -> None:
    op.drop_column("coupons", "strategy")
