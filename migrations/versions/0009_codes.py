"""Unique codes of a coupon: each is assigned to one claim and redeemed once."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "codes",
        sa.Column("coupon_name", sa.Text(collation="C"), nullable=False),
        sa.Column("code", sa.Text(collation="C"), nullable=False),
        # The order in which codes are assigned.
        sa.Column("place", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("claim_id", sa.Uuid()),
        sa.Column("expires_at", sa.DateTime(timezone=True)),
        sa.Column("voided_at", sa.DateTime(timezone=True)),
        sa.Column("redeemed_at", sa.DateTime(timezone=True)),
        sa.Column("redemption_id", sa.Uuid()),
        sa.PrimaryKeyConstraint("coupon_name", "code", name="codes_pkey"),
        sa.ForeignKeyConstraint(["coupon_name"], ["coupons.name"], name="codes_coupon_name_fkey", ondelete="CASCADE"),
        sa.CheckConstraint("octet_length(code) BETWEEN 1 AND 255", name="codes_code_length_check"),
        sa.CheckConstraint("redeemed_at IS NULL OR claim_id IS NOT NULL", name="codes_redeemed_check"),
        postgresql_with={"fillfactor": 80},
    )
    op.create_index(
        "codes_one_per_claim",
        "codes",
        ["coupon_name", "claim_id"],
        unique=True,
        postgresql_where=sa.text("claim_id IS NOT NULL"),
    )
    op.create_index(
        "codes_free_idx",
        "codes",
        ["coupon_name", "place"],
        postgresql_where=sa.text("claim_id IS NULL AND voided_at IS NULL"),
    )
    # A code is unique across all coupons and identifies its coupon. Only uploads write this table, never claims.
    op.create_table(
        "code_names",
        sa.Column("code", sa.Text(collation="C"), nullable=False),
        sa.Column("coupon_name", sa.Text(collation="C"), nullable=False),
        sa.PrimaryKeyConstraint("code", name="code_names_pkey"),
    )


def downgrade() -> None:
    op.drop_table("code_names")
    op.drop_table("codes")
