"""The audit log: entries are added and never changed."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject_type", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False, server_default=""),
        sa.Column("request_id", sa.Text()),
        sa.Column("details", JSONB(), nullable=False, server_default="{}"),
        sa.PrimaryKeyConstraint("id", name="audit_pkey"),
        sa.CheckConstraint(
            "actor <> '' AND action <> '' AND subject_type <> '' AND subject <> ''", name="audit_named_check"
        ),
    )
    op.create_index("audit_subject_idx", "audit", ["subject_type", "subject", "id"])
    op.execute(
        """
        CREATE FUNCTION audit_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'entries of audit are never changed or removed' USING ERRCODE = 'insufficient_privilege';
        END
        $$
        """
    )
    op.execute(
        """
        CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
        FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse_change()
        """
    )
    # ALWAYS: also in sessions with session_replication_role = replica, which skip ordinary triggers.
    op.execute("ALTER TABLE audit ENABLE ALWAYS TRIGGER audit_append_only")


def downgrade() -> None:
    op.drop_table("audit")
    op.execute("DROP FUNCTION audit_refuse_change")
