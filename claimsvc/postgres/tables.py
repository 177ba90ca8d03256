"""The tables, as Alembic's target.

Every unique key of `coupons` and `user_claims` contains the coupon's name, so that both tables can be sharded by it
(with Citus, for example) without transactions across shards. A test checks this. `audit` stays on one node.
"""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Float,
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

# The smallest UUID of version 7 of a day ago, in SQL.
DAY_AGO = (
    "(lpad(to_hex((extract(epoch FROM now() - interval '1 day') * 1000)::bigint), 12, '0')"
    " || '70008000000000000000')::uuid"
)

# Byte order: names are ASCII, and the order of pages must not depend on the server's locale.
_NAME = Text(collation="C")

coupons = Table(
    "coupons",
    metadata,
    Column("name", _NAME, primary_key=True),
    Column("amount", Integer, nullable=False),
    Column("remaining_amount", Integer, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("strategy", Text, nullable=False, server_default="redlock"),
    # Until when only the stock decides claims: always if NULL, not at all if in the past. See `fast_path_window`.
    Column("plain_until", DateTime(timezone=True)),
    # How many of its claims have ended; NULL if that is not known. See `claims_per_user`.
    Column("ended_count", BigInteger),
    # The ids of handed batches up to which the fence forgets; see `postgres.claiming.fence`.
    Column("fenced_after", Uuid, server_default=text(DAY_AGO), nullable=False),
    CheckConstraint("strategy IN ('redlock', 'row_lock', 'counter')", name="strategy"),
    CheckConstraint("octet_length(name) BETWEEN 1 AND 255", name="name_length"),
    CheckConstraint("0 <= remaining_amount AND remaining_amount <= amount", name="stock"),
    # For searches. It is missing where the extension pg_trgm cannot be created.
    Index(
        "coupons_name_trgm_idx",
        "name",
        postgresql_using="gin",
        postgresql_ops={"name": "gin_trgm_ops"},
        postgresql_with={"fastupdate": "off"},
    ),
    # Claims update the same few rows again and again; free space on the page allows heap-only updates (HOT).
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
    # Numbers a user's units of the coupon, from 1.
    Column("slot", SmallInteger, nullable=False, server_default="1"),
    # When a held claim expires; NULL once it is confirmed.
    Column("held_until", DateTime(timezone=True)),
    Column("ended_at", DateTime(timezone=True)),
    # The order of listings. `claimed_at` is set while the coupon's row is locked.
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
    # Not unique, because of sharding; see above. The ids are UUIDv7, with 74 random bits.
    Index("user_claims_id_idx", "id"),
)

# The terms of coupons; a coupon without terms has no row. A separate table keeps the rows that every claim updates
# narrow.
handed_batches = Table(
    "handed_batches",
    metadata,
    # No foreign key: the fence outlives the coupon.
    Column("coupon_name", _NAME, primary_key=True),
    Column("id", Uuid, primary_key=True),
)

campaigns = Table(
    "campaigns",
    metadata,
    Column("coupon_name", _NAME, ForeignKey("coupons.name", ondelete="CASCADE"), primary_key=True),
    Column("starts_at", DateTime(timezone=True)),
    Column("ends_at", DateTime(timezone=True)),
    Column("paused", Boolean, nullable=False, server_default=false()),
    Column("archived_at", DateTime(timezone=True)),
    Column("per_user_limit", SmallInteger, nullable=False, server_default="1"),
    # If true, a user may hold units in higher slots and none in the first.
    Column("had_higher_limit", Boolean, nullable=False, server_default=false()),
    Column("type", _NAME),
    Column("benefit", JSONB),
    Column("metadata", JSONB, nullable=False, server_default="{}"),
    Column("rules", JSONB),
    # The active versions of the lists; other versions are being loaded, or were replaced.
    Column("allow_version", Integer),
    Column("deny_version", Integer),
    Column("has_codes", Boolean, nullable=False, server_default=false()),
    Column("code_pattern", Text),
    # The types that codes of it have of their own; NULL if none has.
    Column("code_types", ARRAY(_NAME)),
    # How often each claim may be redeemed, unless its code says otherwise.
    Column("uses", SmallInteger, nullable=False, server_default="1"),
    CheckConstraint("uses BETWEEN 1 AND 1000", name="uses"),
    Column("claims_per_user", Integer),
    # The queue in which its claims wait, in the form of `dataclasses.asdict`; NULL if they are decided at once.
    Column("queue", JSONB),
    # For how long a unit that comes back is held for who waits for it; NULL if nobody may wait for that.
    Column("waiting_list_seconds", Integer),
    CheckConstraint("waiting_list_seconds BETWEEN 1 AND 86400", name="waiting_list"),
    CheckConstraint("starts_at < ends_at", name="period"),
    CheckConstraint("per_user_limit BETWEEN 1 AND 1000", name="per_user_limit"),
    CheckConstraint("claims_per_user BETWEEN 1 AND 1000000", name="claims_per_user"),
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

# Versions of lists: active, being loaded, or recently replaced. Entries reference these rows instead of the coupon's,
# because the foreign key check locks the referenced row.
eligibility_versions = Table(
    "eligibility_versions",
    metadata,
    Column("coupon_name", _NAME, ForeignKey("coupons.name", ondelete="CASCADE"), primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("version", Integer, Identity(always=True), primary_key=True),
    # The number of entries; NULL until the version is complete.
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
    # The order in which codes are given.
    Column("place", BigInteger, Identity(always=True), nullable=False),
    Column("claim_id", Uuid),
    Column("expires_at", DateTime(timezone=True)),
    Column("voided_at", DateTime(timezone=True)),
    # The first redemption; see `redemptions`.
    Column("redeemed_at", DateTime(timezone=True)),
    Column("redemption_id", Uuid),
    # How often it may be redeemed; NULL if as often as the coupon says.
    Column("uses", SmallInteger),
    # Its own; NULL if those of the coupon count. Not `type`: the previous version's statements take that from the table
    # `campaigns`.
    Column("own_type", _NAME),
    Column("benefit", JSONB),
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
    # For the counts. Most codes have no type of their own.
    Index("codes_own_type_idx", "own_type", postgresql_where=text("own_type IS NOT NULL")),
    postgresql_with={"fillfactor": 80},
)

# Makes codes unique across coupons, and maps a code to its coupon. Written when codes are added, not by claims.
code_names = Table(
    "code_names",
    metadata,
    Column("code", _NAME, primary_key=True),
    Column("coupon_name", _NAME, nullable=False),
    # The same for all codes of a batch, so that after a commit in doubt the batch recognizes its own codes.
    Column("upload_id", Uuid),
    # Finds a code without regard to case. Not unique: codes may differ by case alone.
    Index("code_names_lower_idx", func.lower(text("code"))),
)

# Each redemption of a claim. The key lets no two transactions record the same use. Without a foreign key, whose check
# would lock the coupon's row, which claims update.
redemptions = Table(
    "redemptions",
    metadata,
    Column("coupon_name", _NAME, primary_key=True),
    Column("claim_id", Uuid, primary_key=True),
    Column("number", SmallInteger, primary_key=True),
    Column("id", Uuid, nullable=False),
    Column("redeemed_at", DateTime(timezone=True), nullable=False),
    CheckConstraint("number >= 1", name="number"),
)

# The types of coupons whose codes a command has changed, until an instance of the service counts them. A type can occur
# several times, so that no command waits for another.
code_changes = Table(
    "code_changes",
    metadata,
    Column("coupon_type", _NAME),
    Column("changed_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)

# Scopes that this version does not know are ignored, because a newer version may have written them.
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

# The queues in which tickets wait or waited, and what they share between instances. The row is locked by whoever joins,
# leaves or starts tickets; a claim does not touch it.
queues = Table(
    "queues",
    metadata,
    Column("coupon_name", _NAME, ForeignKey("coupons.name", ondelete="CASCADE"), primary_key=True),
    # How many tickets wait.
    Column("waiting", Integer, nullable=False, server_default="0"),
    # No ticket before this place waits.
    Column("head", BigInteger, nullable=False, server_default="0"),
    Column("next_place", BigInteger, nullable=False, server_default="0"),
    # When the tickets of the last second were started.
    Column("starts", ARRAY(DateTime(timezone=True)), nullable=False, server_default="{}"),
    # Starts a second of late, when that was computed, and the starts since; see `domain.pacing`.
    Column("pace", Float),
    Column("paced_at", DateTime(timezone=True)),
    Column("paced_starts", Integer, nullable=False, server_default="0"),
    # When something is to be done next; NULL if that depends on who joins.
    Column("due_at", DateTime(timezone=True)),
    Column("paused", Boolean, nullable=False, server_default=false()),
    # After a failure of the service: until when nothing is started.
    Column("stopped_until", DateTime(timezone=True)),
    # For `order: "draw"`: decides the order, and is published when it is drawn.
    Column("seed", LargeBinary),
    Column("drawn_at", DateTime(timezone=True)),
    # The first place that was drawn, and how many were.
    Column("drawn_from", BigInteger),
    Column("drawn", Integer),
    Column("dispatcher", Text),
    Column("dispatched_at", DateTime(timezone=True)),
    Index("queues_due_idx", "due_at", postgresql_where=text("due_at IS NOT NULL")),
    postgresql_with={"fillfactor": 50},
)

_ACTIVE_TICKET = "state IN ('waiting', 'started')"

# Claims that wait in a queue. Ended tickets are kept for a day.
tickets = Table(
    "tickets",
    metadata,
    Column("coupon_name", _NAME, primary_key=True),
    Column("place", BigInteger, primary_key=True),
    Column("id", Uuid, nullable=False),
    Column("user_id", _NAME, nullable=False),
    Column("state", Text, nullable=False, server_default="waiting"),
    # Those of the claim; NULL for a plain one.
    Column("options", JSONB),
    Column("joined_at", DateTime(timezone=True), nullable=False),
    Column("started_at", DateTime(timezone=True)),
    # Who may make its claim, and until when; NULL while it waits, and until it is tried again.
    Column("lease", Uuid),
    Column("leased_until", DateTime(timezone=True)),
    Column("tries", SmallInteger, nullable=False, server_default="0"),
    Column("next_try_at", DateTime(timezone=True)),
    Column("ended_at", DateTime(timezone=True)),
    Column("claim_id", Uuid),
    # Why it was refused, as a stored answer.
    Column("refusal", JSONB),
    CheckConstraint("state IN ('waiting', 'started', 'claimed', 'refused', 'expired', 'left', 'dead')", name="state"),
    CheckConstraint(f"({_ACTIVE_TICKET}) = (ended_at IS NULL)", name="ended"),
    CheckConstraint("(state = 'claimed') = (claim_id IS NOT NULL)", name="claimed"),
    CheckConstraint("octet_length(user_id) BETWEEN 1 AND 255", name="user_id_length"),
    # Not unique, because of sharding.
    Index("tickets_id_idx", "id"),
    Index("tickets_one_active_per_user", "coupon_name", "user_id", unique=True, postgresql_where=text(_ACTIVE_TICKET)),
    Index("tickets_started_idx", "coupon_name", postgresql_where=text("state = 'started'")),
    Index("tickets_ended_idx", "ended_at", postgresql_where=text("ended_at IS NOT NULL")),
    Index("tickets_dead_idx", "ended_at", postgresql_where=text("state = 'dead'")),
    postgresql_with={"fillfactor": 70},
)

# How many tickets wait in each block of places, so that counting those ahead of one costs the same in a long queue.
ticket_blocks = Table(
    "ticket_blocks",
    metadata,
    Column("coupon_name", _NAME, primary_key=True),
    Column("block", BigInteger, primary_key=True),
    Column("waiting", Integer, nullable=False),
    CheckConstraint("waiting >= 0", name="waiting"),
    postgresql_with={"fillfactor": 50},
)

# Who did what, when, to which subject. A trigger refuses to change or delete an entry.
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
    # Each in the order of listings.
    Index("audit_at_idx", "at", "id"),
    Index("audit_subject_idx", "subject", "at", "id"),
    Index("audit_actor_idx", "actor", "at", "id"),
    Index("audit_action_idx", "action", "at", "id"),
)
