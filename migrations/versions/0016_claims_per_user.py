"""How many claims of a coupon one user may make in all, and whether a claim of the coupon has ended."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Neither column has a default, so the tables are not rewritten.
    op.add_column("campaigns", sa.Column("claims_per_user", sa.Integer()))
    op.execute(
        "ALTER TABLE campaigns ADD CONSTRAINT campaigns_claims_per_user_check "
        "CHECK (claims_per_user BETWEEN 1 AND 1000000) NOT VALID"
    )
    # NULL is not known: for coupons of earlier versions.
    op.add_column("coupons", sa.Column("ended_count", sa.BigInteger()))
    # Validated without a lock that keeps claims or changes out.
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE campaigns VALIDATE CONSTRAINT campaigns_claims_per_user_check")


def downgrade() -> None:
    op.drop_column("coupons", "ended_count")
    op.drop_constraint("campaigns_claims_per_user_check", "campaigns", type_="check")
    op.drop_column("campaigns", "claims_per_user")
