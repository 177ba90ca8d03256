"""The tables, as Alembic's target.

Every unique key of `coupons` and `user_claims` contains the coupon's name, so that both can be distributed by it
(Citus and its like) without a transaction that crosses shards. `tests/storage` keeps it so. `audit` stays on one node.
"""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    }
)

# Byte order: names are ASCII, and a page's order may not depend on the locale of the server.
_NAME = Text(collation="C")

coupons = Table(
    "coupons",
    metadata,
    Column("name", _NAME, primary_key=True),
    Column("amount", Integer, nullable=False),
    Column("remaining_amount", Integer, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("strategy", Text, nullable=False, server_default="redlock"),
    CheckConstraint("strategy IN ('redlock', 'row_lock', 'counter')", name="strategy"),
    CheckConstraint("octet_length(name) BETWEEN 1 AND 255", name="name_length"),
    CheckConstraint("0 <= remaining_amount AND remaining_amount <= amount", name="stock"),
    # Claims rewrite the same few rows over and over: room on the page keeps those updates off the index (HOT).
    postgresql_with={"fillfactor": 50},
)

user_claims = Table(
    "user_claims",
    metadata,
    Column("id", Uuid, nullable=False),
    Column("coupon_name", _NAME, ForeignKey("coupons.name"), nullable=False),
    Column("user_id", _NAME, nullable=False),
    Column("state", Text, nullable=False),
    Column("claimed_at", DateTime(timezone=True), nullable=False),
    # In the order in which claims are listed. `claimed_at` is set while the coupon's row is locked.
    PrimaryKeyConstraint("coupon_name", "claimed_at", "id"),
    CheckConstraint("state IN ('active')", name="state"),
    CheckConstraint("octet_length(user_id) BETWEEN 1 AND 255", name="user_id_length"),
    Index(
        "user_claims_one_active_per_user",
        "coupon_name",
        "user_id",
        unique=True,
        postgresql_where=text("state = 'active'"),
    ),
    # Not unique by itself: see above. The ids are UUIDv7, 74 bits of them random.
    Index("user_claims_id_idx", "id"),
)

# Who did what, when, to which thing. A trigger refuses to change or remove an entry.
audit = Table(
    "audit",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject_type", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("reason", Text, nullable=False, server_default=""),
    Column("request_id", Text),
    Column("details", JSONB, nullable=False, server_default="{}"),
    CheckConstraint("actor <> '' AND action <> '' AND subject_type <> '' AND subject <> ''", name="named"),
    Index("audit_subject_idx", "subject_type", "subject", "id"),
)
