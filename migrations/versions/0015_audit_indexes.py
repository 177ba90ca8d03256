"""Indexes for reading the audit log by time, subject, actor and action."""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_ADDED = {"audit_at_idx": [], "audit_actor_idx": ["actor"], "audit_action_idx": ["action"]}


def upgrade() -> None:
    op.drop_index("audit_subject_idx", "audit")
    op.create_index("audit_subject_idx", "audit", ["subject", "at", "id"])
    for name, columns in _ADDED.items():
        op.create_index(name, "audit", [*columns, "at", "id"])


def downgrade() -> None:
    for name in _ADDED:
        op.drop_index(name, "audit")
    op.drop_index("audit_subject_idx", "audit")
    op.create_index("audit_subject_idx", "audit", ["subject_type", "subject", "id"])
