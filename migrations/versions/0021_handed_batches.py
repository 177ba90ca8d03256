"""The fence of batches that instances hand to each other, so that each is decided once.

A batch is fenced by its id, a UUID of version 7. Ids are forgotten after a day. `fenced_after` is the id up to which a
coupon's batches are refused: those that may have been forgotten, and those that are older than the coupon.
"""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

# The smallest UUID of version 7 of a day ago.
_DAY_AGO = """
(lpad(to_hex((extract(epoch FROM now() - interval '1 day') * 1000)::bigint), 12, '0') || '70008000000000000000')::uuid
"""


def upgrade() -> None:
    op.create_table(
        "handed_batches",
        sa.Column("coupon_name", sa.Text(collation="C"), primary_key=True),
        sa.Column("id", sa.Uuid(), primary_key=True),
    )
    # now() is evaluated once, so that no row is rewritten.
    op.add_column("coupons", sa.Column("fenced_after", sa.Uuid(), server_default=sa.text(_DAY_AGO), nullable=False))


def downgrade() -> None:
    op.drop_column("coupons", "fenced_after")
    op.drop_table("handed_batches")
