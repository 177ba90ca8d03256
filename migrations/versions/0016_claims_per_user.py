"""How many claims of a coupon one user may make in all, and whether a claim of the coupon has ended."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Neither column has a default, so the tables are not rewritten. Claims lock `coupons` before `campaigns`: a
    # transaction that held both, or took them in the other order, would deadlock with them. If the rest fails, all of
    # this can run again.
    # NULL is not known: for coupons of earlier versions.
    op.execute("ALTER TABLE coupons ADD COLUMN IF NOT EXISTS ended_count bigint")
    with op.get_context().autocommit_block():
        pass
    op.add_column("campaigns", sa.Column("claims_per_user", sa.Integer()))
    op.execute(
        "ALTER TABLE campaigns ADD CONSTRAINT campaigns_claims_per_user_check "
        "CHECK (claims_per_user BETWEEN 1 AND 1000000) NOT VALID"
    )
    # Validated without a lock that keeps claims or changes out.
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE campaigns VALIDATE CONSTRAINT campaigns_claims_per_user_check")


def downgrade() -> None:
    op.drop_column("coupons", "ended_count")
    op.drop_constraint("campaigns_claims_per_user_check", "campaigns", type_="check")
    op.drop_column("campaigns", "claims_per_user")
