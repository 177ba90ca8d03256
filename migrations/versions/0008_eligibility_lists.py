"""Lists of the users who may claim a coupon, and of those who may not."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "eligibility_lists",
        sa.Column("coupon_name", sa.Text(collation="C"), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Text(collation="C"), nullable=False),
        sa.PrimaryKeyConstraint("coupon_name", "kind", "version", "user_id", name="eligibility_lists_pkey"),
        sa.ForeignKeyConstraint(
            ["coupon_name"], ["coupons.name"], name="eligibility_lists_coupon_name_fkey", ondelete="CASCADE"
        ),
        sa.CheckConstraint("kind IN ('allow', 'deny')", name="eligibility_lists_kind_check"),
        sa.CheckConstraint("octet_length(user_id) BETWEEN 1 AND 255", name="eligibility_lists_user_id_length_check"),
    )


def downgrade() -> None:
    op.drop_table("eligibility_lists")
