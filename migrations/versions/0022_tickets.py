"""Queues of coupons, and the tickets that wait in them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

_ACTIVE = "state IN ('waiting', 'started')"


def upgrade() -> None:
    op.add_column("campaigns", sa.Column("queue", JSONB))
    op.add_column("campaigns", sa.Column("waiting_list_seconds", sa.Integer))
    op.create_check_constraint("campaigns_waiting_list_check", "campaigns", "waiting_list_seconds BETWEEN 1 AND 86400")
    op.create_table(
        "queues",
        sa.Column("coupon_name", sa.Text(collation="C"), nullable=False),
        sa.Column("waiting", sa.Integer, nullable=False, server_default="0"),
        sa.Column("head", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("next_place", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("starts", ARRAY(sa.DateTime(timezone=True)), nullable=False, server_default="{}"),
        sa.Column("pace", sa.Float),
        sa.Column("paced_at", sa.DateTime(timezone=True)),
        sa.Column("paced_starts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("due_at", sa.DateTime(timezone=True)),
        sa.Column("paused", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("stopped_until", sa.DateTime(timezone=True)),
        sa.Column("seed", sa.LargeBinary),
        sa.Column("drawn_at", sa.DateTime(timezone=True)),
        sa.Column("drawn_from", sa.BigInteger),
        sa.Column("drawn", sa.Integer),
        sa.Column("dispatcher", sa.Text),
        sa.Column("dispatched_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("coupon_name", name="queues_pkey"),
        sa.ForeignKeyConstraint(["coupon_name"], ["coupons.name"], name="queues_coupon_name_fkey", ondelete="CASCADE"),
        postgresql_with={"fillfactor": 50},
    )
    op.create_index("queues_due_idx", "queues", ["due_at"], postgresql_where=sa.text("due_at IS NOT NULL"))
    op.create_table(
        "tickets",
        sa.Column("coupon_name", sa.Text(collation="C"), nullable=False),
        sa.Column("place", sa.BigInteger, nullable=False),
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("user_id", sa.Text(collation="C"), nullable=False),
        sa.Column("state", sa.Text, nullable=False, server_default="waiting"),
        sa.Column("options", JSONB),
        sa.Column("joined_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("lease", sa.Uuid),
        sa.Column("leased_until", sa.DateTime(timezone=True)),
        sa.Column("tries", sa.SmallInteger, nullable=False, server_default="0"),
        sa.Column("next_try_at", sa.DateTime(timezone=True)),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("claim_id", sa.Uuid),
        sa.Column("refusal", JSONB),
        sa.PrimaryKeyConstraint("coupon_name", "place", name="tickets_pkey"),
        sa.CheckConstraint(
            "state IN ('waiting', 'started', 'claimed', 'refused', 'expired', 'left', 'dead')",
            name="tickets_state_check",
        ),
        sa.CheckConstraint(f"({_ACTIVE}) = (ended_at IS NULL)", name="tickets_ended_check"),
        sa.CheckConstraint("(state = 'claimed') = (claim_id IS NOT NULL)", name="tickets_claimed_check"),
        sa.CheckConstraint("octet_length(user_id) BETWEEN 1 AND 255", name="tickets_user_id_length_check"),
        postgresql_with={"fillfactor": 70},
    )
    op.create_index("tickets_id_idx", "tickets", ["id"])
    op.create_index(
        "tickets_one_active_per_user",
        "tickets",
        ["coupon_name", "user_id"],
        unique=True,
        postgresql_where=sa.text(_ACTIVE),
    )
    op.create_index("tickets_started_idx", "tickets", ["coupon_name"], postgresql_where=sa.text("state = 'started'"))
    op.create_index("tickets_ended_idx", "tickets", ["ended_at"], postgresql_where=sa.text("ended_at IS NOT NULL"))
    op.create_index("tickets_dead_idx", "tickets", ["ended_at"], postgresql_where=sa.text("state = 'dead'"))
    op.create_table(
        "ticket_blocks",
        sa.Column("coupon_name", sa.Text(collation="C"), nullable=False),
        sa.Column("block", sa.BigInteger, nullable=False),
        sa.Column("waiting", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("coupon_name", "block", name="ticket_blocks_pkey"),
        sa.CheckConstraint("waiting >= 0", name="ticket_blocks_waiting_check"),
        postgresql_with={"fillfactor": 50},
    )


def downgrade() -> None:
    op.drop_table("ticket_blocks")
    op.drop_table("tickets")
    op.drop_table("queues")
    op.drop_column("campaigns", "waiting_list_seconds")
    op.drop_column("campaigns", "queue")
