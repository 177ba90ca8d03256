"""Which upload a code came with, so that one whose end was in doubt knows its own; and codes that expire."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("code_names", sa.Column("upload_id", sa.Uuid()))
    op.create_index(
        "codes_expiry_idx",
        "codes",
        ["coupon_name", "expires_at"],
        postgresql_where=sa.text("claim_id IS NULL AND voided_at IS NULL AND expires_at IS NOT NULL"),
    )
    op.create_index("codes_redeemed_idx", "codes", ["coupon_name"], postgresql_where=sa.text("redeemed_at IS NOT NULL"))
    # Who claims without naming a coupon is given the oldest that has stock.
    op.create_index("coupons_created_at_idx", "coupons", ["created_at", "name"])


def downgrade() -> None:
    op.drop_index("coupons_created_at_idx", "coupons")
    op.drop_index("codes_redeemed_idx", "codes")
    op.drop_index("codes_expiry_idx", "codes")
    op.drop_column("code_names", "upload_id")
