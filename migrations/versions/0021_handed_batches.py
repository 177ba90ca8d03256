"""The fence of batches that instances hand to each other, so that each is decided once."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "handed_batches",
        sa.Column("coupon_name", sa.Text(collation="C"), primary_key=True),
        sa.Column("id", sa.Uuid(), primary_key=True),
    )
    op.add_column("coupons", sa.Column("fenced_after", sa.Uuid()))


def downgrade() -> None:
    op.drop_column("coupons", "fenced_after")
    op.drop_table("handed_batches")
