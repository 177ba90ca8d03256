"""API keys with scopes; only their digests are stored."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("scopes", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("expires_at", sa.DateTime(timezone=True)),
        sa.Column("revoked_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name="api_keys_pkey"),
        sa.CheckConstraint("octet_length(digest) = 32", name="api_keys_digest_check"),
        sa.CheckConstraint("cardinality(scopes) > 0", name="api_keys_scopes_check"),
    )
    op.create_index("api_keys_digest_idx", "api_keys", ["digest"], unique=True)


def downgrade() -> None:
    op.drop_table("api_keys")
