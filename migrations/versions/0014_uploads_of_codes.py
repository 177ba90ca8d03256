"""The upload of each code, so that an upload with an unknown result recognizes its codes; and expiry of codes."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
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


def downgrade() -> None:
    op.drop_index("codes_expiry_idx", "codes")
    op.drop_column("code_names", "upload_id")
