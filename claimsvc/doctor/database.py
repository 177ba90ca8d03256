"""Judges a PostgreSQL server from the facts collected about it."""

from collections.abc import Sequence

from claimsvc.config import DatabaseSettings, Settings
from claimsvc.doctor.findings import Findings, judge_answer, judge_clock, ok, warning, wrong
from claimsvc.domain import RowHolder
from claimsvc.postgres import DatabaseFacts

_SUBJECT = "database"
_RELOAD = "then SELECT pg_reload_conf()"


def judge_database(facts: DatabaseFacts, settings: DatabaseSettings) -> Findings:
    """Judge everything except the schema."""
    yield ok(_SUBJECT, f"PostgreSQL {facts.version} answers in {facts.answer_seconds * 1000:.1f} ms")
    if facts.version_number < 140_000:
        yield wrong(
            _SUBJECT, f"PostgreSQL {facts.version} is too old", "upgrade it to 18; the oldest supported version is 14"
        )
    elif facts.version_number < 170_000:
        yield warning(
            _SUBJECT,
            f"PostgreSQL {facts.version} does not end the transaction of a process that was paused during it",
            "upgrade it to 17 or newer; until then a paused process blocks its coupons for the other instances",
        )
    if facts.is_standby:
        yield wrong(_SUBJECT, "it is a standby and takes no writes", "set CLAIMSVC_DATABASE_URL to the primary")
    elif facts.is_read_only:
        yield wrong(
            _SUBJECT,
            "its transactions are read-only",
            "ALTER ROLE, ALTER DATABASE or ALTER SYSTEM: RESET default_transaction_read_only",
        )
    yield from judge_answer(_SUBJECT, facts.answer_seconds)
    yield from judge_clock(_SUBJECT, facts.clock_ahead_seconds)
    yield from _judge_durability(facts)
    if facts.log_error_verbosity != "terse":
        yield warning(
            _SUBJECT,
            f"log_error_verbosity is {facts.log_error_verbosity}: PostgreSQL's log names users whose claims it refuses",
            "as a superuser: ALTER ROLE ... SET log_error_verbosity = terse, for the role of CLAIMSVC_DATABASE_URL",
        )
    yield from _judge_connections(facts, settings)


def _judge_durability(facts: DatabaseFacts) -> Findings:
    if facts.synchronous_commit == "off":
        yield wrong(
            _SUBJECT,
            "synchronous_commit is off: a claim that was answered with 201 can be lost",
            f"ALTER SYSTEM SET synchronous_commit = on, {_RELOAD}; also check ALTER ROLE and ALTER DATABASE",
        )
    for name, is_on in (("fsync", facts.fsync), ("full_page_writes", facts.full_page_writes)):
        if not is_on:
            yield wrong(
                _SUBJECT,
                f"{name} is off: a crash of the machine can destroy the database",
                f"ALTER SYSTEM SET {name} = on, {_RELOAD}",
            )


def _judge_connections(facts: DatabaseFacts, settings: DatabaseSettings) -> Findings:
    workers = settings.workers if isinstance(settings, Settings) else 1
    needed = workers * settings.connections_of_worker()
    instances = facts.most_connections // needed
    found = f"an instance opens up to {needed} connections and {facts.most_connections} are available"
    mend = (
        "raise max_connections (or the role's limit), or lower CLAIMSVC_DATABASE_POOL_SIZE, "
        "CLAIMSVC_DATABASE_READ_POOL_SIZE or CLAIMSVC_WORKERS"
    )
    if instances == 0:
        yield wrong(_SUBJECT, found, mend)
    elif instances == 1:
        yield warning(_SUBJECT, f"{found}: a second instance does not fit, not even during a rolling update", mend)
    else:
        yield ok(_SUBJECT, f"{found}: enough for {instances} instances")


def judge_schema(facts: DatabaseFacts) -> Findings:
    """Judge the schema's revision."""
    if facts.revision == facts.newest_revision:
        yield ok("migrations", f"the schema is at revision {facts.revision}, the newest")
        if not facts.has_search_index:
            yield warning(
                "migrations",
                "the index for searches of coupons is missing, because the extension pg_trgm could not be created",
                "CREATE EXTENSION pg_trgm (the owner of the database may), then CREATE INDEX CONCURRENTLY "
                "coupons_name_trgm_idx ON coupons USING gin (name gin_trgm_ops) WITH (fastupdate = off)",
            )
    elif facts.revision > facts.newest_revision:
        yield warning(
            "migrations",
            f"the schema is at revision {facts.revision}, newer than this version's {facts.newest_revision}",
            "upgrade this installation of claimsvc too",
        )
    else:
        at = f"at revision {facts.revision}, not {facts.newest_revision}" if facts.revision else "missing"
        yield wrong("migrations", f"the schema is {at}", "run `claimsvc migrate`")


def judge_row_holders(holders: Sequence[RowHolder]) -> Findings:
    """Judge sessions that hold the rows of coupons: claims of these coupons wait for them."""
    for holder in holders:
        held = "" if holder.seconds is None else f" for {holder.seconds:.0f} s"
        state = f"; it is {holder.state}" if holder.state else ""
        query = f"; its last statement: {holder.query}" if holder.query else ""
        waiting = f"{holder.waiting} session{'s' * (holder.waiting != 1)} wait{'s' * (holder.waiting == 1)} for it"
        finding = wrong if holder.waiting else warning
        more = "" if holder.seconds is not None else "; GRANT pg_read_all_stats to this role shows what it does"
        yield finding(
            f"coupon {holder.coupon_name}",
            f"its row is held{held} by {holder.who}{state}; {waiting}{query}",
            f"find out what it does; to end it: SELECT pg_terminate_backend({holder.pid}){more}",
        )
