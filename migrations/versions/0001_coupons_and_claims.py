"""Coupons, and the claims on them."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "coupons",
        sa.Column("name", sa.Text(collation="C"), nullable=False),
        sa.Column("amount", sa.Integer(), nullable=False),
        sa.Column("remaining_amount", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.PrimaryKeyConstraint("name", name="coupons_pkey"),
        sa.CheckConstraint("octet_length(name) BETWEEN 1 AND 255", name="coupons_name_length_check"),
        sa.CheckConstraint("0 <= remaining_amount AND remaining_amount <= amount", name="coupons_stock_check"),
        postgresql_with={"fillfactor": 50},
    )
    op.create_table(
        "user_claims",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("coupon_name", sa.Text(collation="C"), nullable=False),
        sa.Column("user_id", sa.Text(collation="C"), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("coupon_name", "claimed_at", "id", name="user_claims_pkey"),
        sa.ForeignKeyConstraint(["coupon_name"], ["coupons.name"], name="user_claims_coupon_name_fkey"),
        sa.CheckConstraint("state IN ('active')", name="user_claims_state_check"),
        sa.CheckConstraint("octet_length(user_id) BETWEEN 1 AND 255", name="user_claims_user_id_length_check"),
    )
    op.create_index(
        "user_claims_one_active_per_user",
        "user_claims",
        ["coupon_name", "user_id"],
        unique=True,
        postgresql_where=sa.text("state = 'active'"),
    )
    op.create_index("user_claims_id_idx", "user_claims", ["id"])


def downgrade() -> None:
    op.drop_table("user_claims")
    op.drop_table("coupons")
