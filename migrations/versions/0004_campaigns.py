"""Properties of a coupon beyond its stock: period, limit per user, rules, benefit."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("coupons", sa.Column("plain_until", sa.DateTime(timezone=True)))
    op.create_table(
        "campaigns",
        sa.Column("coupon_name", sa.Text(collation="C"), nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True)),
        sa.Column("ends_at", sa.DateTime(timezone=True)),
        sa.Column("paused", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("archived_at", sa.DateTime(timezone=True)),
        sa.Column("per_user_limit", sa.SmallInteger(), nullable=False, server_default="1"),
        sa.Column("had_higher_limit", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("type", sa.Text(collation="C")),
        sa.Column("benefit", JSONB()),
        sa.Column("metadata", JSONB(), nullable=False, server_default="{}"),
        sa.Column("rules", JSONB()),
        sa.Column("allow_version", sa.Integer()),
        sa.Column("deny_version", sa.Integer()),
        sa.Column("has_codes", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("code_pattern", sa.Text()),
        sa.PrimaryKeyConstraint("coupon_name", name="campaigns_pkey"),
        sa.ForeignKeyConstraint(
            ["coupon_name"], ["coupons.name"], name="campaigns_coupon_name_fkey", ondelete="CASCADE"
        ),
        sa.CheckConstraint("starts_at < ends_at", name="campaigns_period_check"),
        sa.CheckConstraint("per_user_limit BETWEEN 1 AND 1000", name="campaigns_per_user_limit_check"),
        sa.CheckConstraint("octet_length(metadata::text) <= 16384", name="campaigns_metadata_check"),
        sa.CheckConstraint("octet_length(rules::text) <= 65536", name="campaigns_rules_check"),
    )
    op.create_index(
        "campaigns_type_idx", "campaigns", ["type", "coupon_name"], postgresql_where=sa.text("archived_at IS NULL")
    )


def downgrade() -> None:
    op.drop_table("campaigns")
    op.drop_column("coupons", "plain_until")
