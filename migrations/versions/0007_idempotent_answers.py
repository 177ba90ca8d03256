"""Stored answers for Idempotency-Keys."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "idempotent_answers",
        sa.Column("caller", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(collation="C"), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("answer", JSONB(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("kept_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")),
        sa.PrimaryKeyConstraint("caller", "key", name="idempotent_answers_pkey"),
        sa.CheckConstraint("octet_length(key) BETWEEN 1 AND 255", name="idempotent_answers_key_length_check"),
    )
    op.create_index("idempotent_answers_kept_at_idx", "idempotent_answers", ["kept_at"])


def downgrade() -> None:
    op.drop_table("idempotent_answers")
