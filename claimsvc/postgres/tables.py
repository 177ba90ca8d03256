"""The tables, as Alembic's target.

Every unique key of `coupons` and `user_claims` contains the coupon's name, so that both can be distributed by it
(Citus and its like) without a transaction that crosses shards. `tests/postgres` keeps it so. `audit` stays on one node.
"""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    Uuid,
    false,
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
    # Until when nothing but the stock decides a claim: for ever if NULL, and not at all if it is past. See `plainness`.
    Column("plain_until", DateTime(timezone=True)),
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
    # Which of a user's units of the coupon it is, where there may be several.
    Column("slot", SmallInteger, nullable=False, server_default="1"),
    # Until when it is only held: then it expires, unless it was confirmed before.
    Column("held_until", DateTime(timezone=True)),
    Column("ended_at", DateTime(timezone=True)),
    # In the order in which claims are listed. `claimed_at` is set while the coupon's row is locked.
    PrimaryKeyConstraint("coupon_name", "claimed_at", "id"),
    CheckConstraint("state IN ('active', 'cancelled', 'expired')", name="state"),
    CheckConstraint("(state = 'active') = (ended_at IS NULL)", name="ended"),
    CheckConstraint("slot BETWEEN 1 AND 1000", name="slot"),
    CheckConstraint("octet_length(user_id) BETWEEN 1 AND 255", name="user_id_length"),
    Index(
        "user_claims_one_active_per_slot",
        "coupon_name",
        "user_id",
        "slot",
        unique=True,
        postgresql_where=text("state = 'active'"),
    ),
    Index(
        "user_claims_held_idx",
        "coupon_name",
        "held_until",
        postgresql_where=text("held_until IS NOT NULL AND state = 'active'"),
    ),
    Index("user_claims_ended_idx", "coupon_name", "user_id", postgresql_where=text("state <> 'active'")),
    # Not unique by itself: see above. The ids are UUIDv7, 74 bits of them random.
    Index("user_claims_id_idx", "id"),
)

# What a coupon may have beyond its stock; one that has no row here has none of it. Apart, so that the rows which every
# claim rewrites stay narrow.
campaigns = Table(
    "campaigns",
    metadata,
    Column("coupon_name", _NAME, ForeignKey("coupons.name", ondelete="CASCADE"), primary_key=True),
    Column("starts_at", DateTime(timezone=True)),
    Column("ends_at", DateTime(timezone=True)),
    Column("paused", Boolean, nullable=False, server_default=false()),
    Column("archived_at", DateTime(timezone=True)),
    Column("per_user_limit", SmallInteger, nullable=False, server_default="1"),
    # A user may hold units in slots above the limit, and none in the first.
    Column("had_higher_limit", Boolean, nullable=False, server_default=false()),
    Column("type", _NAME),
    Column("benefit", JSONB),
    Column("metadata", JSONB, nullable=False, server_default="{}"),
    Column("rules", JSONB),
    # Which of the lists are in force; others are being loaded, or were replaced.
    Column("allow_version", Integer),
    Column("deny_version", Integer),
    Column("has_codes", Boolean, nullable=False, server_default=false()),
    Column("code_pattern", Text),
    CheckConstraint("starts_at < ends_at", name="period"),
    CheckConstraint("per_user_limit BETWEEN 1 AND 1000", name="per_user_limit"),
    CheckConstraint("octet_length(metadata::text) <= 16384", name="metadata"),
    CheckConstraint("octet_length(rules::text) <= 65536", name="rules"),
    Index("campaigns_type_idx", "type", "coupon_name", postgresql_where=text("archived_at IS NULL")),
)

idempotent_answers = Table(
    "idempotent_answers",
    metadata,
    Column("caller", Text, primary_key=True),
    Column("key", _NAME, primary_key=True),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("answer", JSONB, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("kept_at", DateTime(timezone=True), nullable=False, server_default=text("clock_timestamp()")),
    CheckConstraint("octet_length(key) BETWEEN 1 AND 255", name="key_length"),
    Index("idempotent_answers_kept_at_idx", "kept_at"),
)

# Lists that are in force, or are being loaded, or were replaced just now. Their users refer to these rows and not to
# the coupon's, which would be locked for each of them.
eligibility_versions = Table(
    "eligibility_versions",
    metadata,
    Column("coupon_name", _NAME, ForeignKey("coupons.name", ondelete="CASCADE"), primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("version", Integer, Identity(always=True), primary_key=True),
    # How many it has, once it is complete.
    Column("users", Integer),
    Column("begun_at", DateTime(timezone=True), nullable=False, server_default=text("clock_timestamp()")),
    CheckConstraint("kind IN ('allow', 'deny')", name="kind"),
)

eligibility_lists = Table(
    "eligibility_lists",
    metadata,
    Column("coupon_name", _NAME, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("user_id", _NAME, primary_key=True),
    ForeignKeyConstraint(
        ["coupon_name", "kind", "version"],
        ["eligibility_versions.coupon_name", "eligibility_versions.kind", "eligibility_versions.version"],
        ondelete="CASCADE",
    ),
    CheckConstraint("kind IN ('allow', 'deny')", name="kind"),
    CheckConstraint("octet_length(user_id) BETWEEN 1 AND 255", name="user_id_length"),
)

codes = Table(
    "codes",
    metadata,
    Column("coupon_name", _NAME, ForeignKey("coupons.name", ondelete="CASCADE"), primary_key=True),
    Column("code", _NAME, primary_key=True),
    # The order in which they are handed out.
    Column("place", BigInteger, Identity(always=True), nullable=False),
    Column("claim_id", Uuid),
    Column("expires_at", DateTime(timezone=True)),
    Column("voided_at", DateTime(timezone=True)),
    Column("redeemed_at", DateTime(timezone=True)),
    Column("redemption_id", Uuid),
    CheckConstraint("octet_length(code) BETWEEN 1 AND 255", name="code_length"),
    CheckConstraint("redeemed_at IS NULL OR claim_id IS NOT NULL", name="redeemed"),
    Index(
        "codes_one_per_claim",
        "coupon_name",
        "claim_id",
        unique=True,
        postgresql_where=text("claim_id IS NOT NULL"),
    ),
    Index(
        "codes_free_idx",
        "coupon_name",
        "place",
        postgresql_where=text("claim_id IS NULL AND voided_at IS NULL"),
    ),
    Index(
        "codes_expiry_idx",
        "coupon_name",
        "expires_at",
        postgresql_where=text("claim_id IS NULL AND voided_at IS NULL AND expires_at IS NOT NULL"),
    ),
    postgresql_with={"fillfactor": 80},
)

# A code is unique over all coupons, and leads to its own. Written with uploads only, never by a claim.
code_names = Table(
    "code_names",
    metadata,
    Column("code", _NAME, primary_key=True),
    Column("coupon_name", _NAME, nullable=False),
    # What is added together has an id in common, by which it is known again if the end of its transaction is in doubt.
    Column("upload_id", Uuid),
)

# A scope that this version does not know gives no right here, and may to the next.
api_keys = Table(
    "api_keys",
    metadata,
    Column("id", _NAME, primary_key=True),
    Column("digest", LargeBinary, nullable=False),
    Column("label", Text, nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("expires_at", DateTime(timezone=True)),
    Column("revoked_at", DateTime(timezone=True)),
    CheckConstraint("octet_length(digest) = 32", name="digest"),
    CheckConstraint("cardinality(scopes) > 0", name="scopes"),
    Index("api_keys_digest_idx", "digest", unique=True),
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
    # Each in the order in which entries are told.
    Index("audit_at_idx", "at", "id"),
    Index("audit_subject_idx", "subject", "at", "id"),
    Index("audit_actor_idx", "actor", "at", "id"),
    Index("audit_action_idx", "action", "at", "id"),
)
