"""Versions of lists: loading a list does not lock the coupon's row for each of its users."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "eligibility_versions",
        sa.Column("coupon_name", sa.Text(collation="C"), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), sa.Identity(always=True), nullable=False),
        # The number of entries; set when the version is complete.
        sa.Column("users", sa.Integer()),
        sa.Column("begun_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")),
        sa.PrimaryKeyConstraint("coupon_name", "kind", "version", name="eligibility_versions_pkey"),
        sa.ForeignKeyConstraint(
            ["coupon_name"], ["coupons.name"], name="eligibility_versions_coupon_name_fkey", ondelete="CASCADE"
        ),
        sa.CheckConstraint("kind IN ('allow', 'deny')", name="eligibility_versions_kind_check"),
    )
    op.drop_constraint("eligibility_lists_coupon_name_fkey", "eligibility_lists", type_="foreignkey")
    op.create_foreign_key(
        "eligibility_lists_coupon_name_fkey",
        "eligibility_lists",
        "eligibility_versions",
        ["coupon_name", "kind", "version"],
        ["coupon_name", "kind", "version"],
        ondelete="CASCADE",
    )


def downgrade() -> None:
    op.drop_constraint("eligibility_lists_coupon_name_fkey", "eligibility_lists", type_="foreignkey")
    op.create_foreign_key(
        "eligibility_lists_coupon_name_fkey",
        "eligibility_lists",
        "coupons",
        ["coupon_name"],
        ["name"],
        ondelete="CASCADE",
    )
    op.drop_table("eligibility_versions")
