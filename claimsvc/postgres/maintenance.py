"""Maintenance: returns the units of expired holds, and removes rows that are no longer needed."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import psycopg

from claimsvc.domain import AuditEntry, PurgeReport
from claimsvc.errors import InvariantViolatedError
from claimsvc.ports import StorageObserver
from claimsvc.postgres.audit import INSERT_ENTRY, parameters_of
from claimsvc.postgres.claiming.fast_path_window import UPDATE_PLAIN_UNTIL
from claimsvc.postgres.claiming.fence import LOCK_COUPONS, PURGE_FENCE
from claimsvc.postgres.claiming.holds import SETTLE_HOLDS
from claimsvc.postgres.claiming.waiting_list import serve_waiting_list
from claimsvc.postgres.code_changes import TYPES_OF, CodeChanges
from claimsvc.postgres.connections import Driver
from claimsvc.postgres.database import Database
from claimsvc.postgres.idempotency import RETENTION
from claimsvc.postgres.tickets.joining import LOCK_QUEUE
from claimsvc.postgres.tickets.removing import COUNT_TICKETS, COUNT_UNFINISHED, END_OF_COUPON, PURGE_TICKETS
from claimsvc.postgres.transactions import RestartTransactionError

# Walks the index of holds from one coupon to the next, and reads only the earliest hold of each, so the cost depends on
# the number of coupons with holds, not on the number of holds or claims.
_DUE_COUPONS = """
WITH RECURSIVE first_hold (coupon_name, held_until) AS (
    (
        SELECT coupon_name, held_until FROM user_claims
        WHERE coupon_name > %(after)s AND held_until IS NOT NULL AND state = 'active'
        ORDER BY coupon_name, held_until
        LIMIT 1
    )
    UNION ALL
    SELECT following.coupon_name, following.held_until
    FROM first_hold CROSS JOIN LATERAL (
        SELECT coupon_name, held_until FROM user_claims
        WHERE coupon_name > first_hold.coupon_name AND held_until IS NOT NULL AND state = 'active'
        ORDER BY coupon_name, held_until
        LIMIT 1
    ) AS following
)
SELECT coupon_name FROM first_hold WHERE held_until <= now() LIMIT %(most)s
"""

# Replacing an expired answer waits for this; SKIP LOCKED keeps this from waiting for anything.
_PURGE_ANSWERS = f"""
WITH old AS MATERIALIZED (
    SELECT caller, key FROM idempotent_answers
    WHERE kept_at <= now() - {RETENTION}
    ORDER BY kept_at
    LIMIT %(most)s
    FOR UPDATE SKIP LOCKED
), deleted AS (
    DELETE FROM idempotent_answers AS answer USING old
    WHERE answer.caller = old.caller AND answer.key = old.key
    RETURNING 1
)
SELECT count(*) FROM deleted
"""  # noqa: S608 - of constants
_COUNT_ANSWERS = f"SELECT count(*) FROM idempotent_answers WHERE kept_at <= now() - {RETENTION}"  # noqa: S608

# What replacing a list deletes, if that was interrupted: versions that are complete but not active, and unfinished ones
# that are too old to be still loading.
_REPLACED_VERSIONS = """
    eligibility_versions AS listed
    LEFT JOIN campaigns AS campaign ON campaign.coupon_name = listed.coupon_name
    WHERE (listed.users IS NOT NULL OR listed.begun_at < clock_timestamp() - interval '1 day')
        AND listed.version IS DISTINCT FROM
            CASE listed.kind WHEN 'allow' THEN campaign.allow_version ELSE campaign.deny_version END
"""
_REPLACED = f"""
    (SELECT listed.coupon_name, listed.kind, listed.version FROM {_REPLACED_VERSIONS}) AS replaced
    JOIN eligibility_lists AS entry
        ON entry.coupon_name = replaced.coupon_name AND entry.kind = replaced.kind AND entry.version = replaced.version
"""  # noqa: S608 - of constants
# A version is deleted once an earlier pass has deleted all of its entries.
_PURGE_LISTS = f"""
WITH old AS MATERIALIZED (
    SELECT entry.coupon_name, entry.kind, entry.version, entry.user_id
    FROM {_REPLACED}
    LIMIT %(most)s
    FOR UPDATE OF entry SKIP LOCKED
), deleted AS (
    DELETE FROM eligibility_lists AS entry USING old
    WHERE entry.coupon_name = old.coupon_name AND entry.kind = old.kind AND entry.version = old.version
        AND entry.user_id = old.user_id
    RETURNING 1
), emptied AS (
    DELETE FROM eligibility_versions AS version USING (
        SELECT listed.coupon_name, listed.kind, listed.version FROM {_REPLACED_VERSIONS}
            AND NOT EXISTS (
                SELECT FROM eligibility_lists AS entry
                WHERE entry.coupon_name = listed.coupon_name AND entry.kind = listed.kind
                    AND entry.version = listed.version
            )
    ) AS empty
    WHERE version.coupon_name = empty.coupon_name AND version.kind = empty.kind AND version.version = empty.version
)
SELECT count(*) FROM deleted
"""  # noqa: S608 - of constants
_COUNT_LISTS = f"SELECT count(*) FROM {_REPLACED}"  # noqa: S608

_HAS_ENDED = "least(archived_at, ends_at) <= now() - make_interval(days => %(days)s)"
_ENDED_COUPONS = f"""
SELECT coupon_name FROM campaigns WHERE coupon_name > %(after)s AND {_HAS_ENDED} ORDER BY coupon_name LIMIT %(most)s
"""  # noqa: S608 - of constants

# FOR UPDATE keeps other transactions from adding rows that refer to the coupon, because it may be deleted.
_LOCK_TO_REMOVE = "SELECT FROM coupons WHERE name = %(coupon_name)s FOR UPDATE"
_CHECK_ENDED = f"SELECT FROM campaigns WHERE coupon_name = %(coupon_name)s AND {_HAS_ENDED}"

# The amount decreases with the deleted active claims in the same statement, so the sums are right in every snapshot.
_PURGE_CLAIMS = """
WITH old AS MATERIALIZED (
    SELECT claimed_at, id FROM user_claims
    WHERE coupon_name = %(coupon_name)s
    ORDER BY claimed_at, id
    LIMIT %(most)s
), deleted AS (
    DELETE FROM user_claims AS claim USING old
    WHERE claim.coupon_name = %(coupon_name)s AND claim.claimed_at = old.claimed_at AND claim.id = old.id
    RETURNING claim.id, claim.state
), deleted_codes AS (
    DELETE FROM codes USING deleted
    WHERE codes.coupon_name = %(coupon_name)s AND codes.claim_id = deleted.id
    RETURNING codes.code
), named AS (
    DELETE FROM code_names USING deleted_codes WHERE code_names.code = deleted_codes.code
), deleted_redemptions AS (
    DELETE FROM redemptions USING deleted
    WHERE redemptions.coupon_name = %(coupon_name)s AND redemptions.claim_id = deleted.id
), offered AS (
    UPDATE coupons SET amount = amount - units
    FROM (SELECT count(*) AS units FROM deleted WHERE state = 'active') AS taken
    WHERE name = %(coupon_name)s AND units > 0
)
SELECT (SELECT count(*) FROM deleted), (SELECT count(*) FROM deleted_codes)
"""

# Runs once there are no claims, so the remaining codes belong to none. Each free one is a unit of stock.
_PURGE_CODES = """
WITH old AS MATERIALIZED (
    SELECT code FROM codes
    WHERE coupon_name = %(coupon_name)s AND NOT EXISTS (SELECT FROM user_claims WHERE coupon_name = %(coupon_name)s)
    ORDER BY code
    LIMIT %(most)s
), deleted AS (
    DELETE FROM codes USING old
    WHERE codes.coupon_name = %(coupon_name)s AND codes.code = old.code
    RETURNING codes.code, codes.claim_id IS NULL AND codes.voided_at IS NULL AS is_free
), named AS (
    DELETE FROM code_names USING deleted WHERE code_names.code = deleted.code
), offered AS (
    UPDATE coupons SET amount = amount - units, remaining_amount = remaining_amount - units
    FROM (SELECT count(*) AS units FROM deleted WHERE is_free) AS free
    WHERE name = %(coupon_name)s AND units > 0
)
SELECT count(*) FROM deleted
"""

_PURGE_LIST = """
WITH old AS MATERIALIZED (
    SELECT kind, version, user_id FROM eligibility_lists WHERE coupon_name = %(coupon_name)s LIMIT %(most)s
), deleted AS (
    DELETE FROM eligibility_lists AS entry USING old
    WHERE entry.coupon_name = %(coupon_name)s AND entry.kind = old.kind AND entry.version = old.version
        AND entry.user_id = old.user_id
    RETURNING 1
)
SELECT count(*) FROM deleted
"""

_PURGE_COUPON = """
WITH deleted AS (
    DELETE FROM coupons
    WHERE name = %(coupon_name)s
        AND NOT EXISTS (SELECT FROM user_claims WHERE coupon_name = %(coupon_name)s)
        AND NOT EXISTS (SELECT FROM codes WHERE coupon_name = %(coupon_name)s)
        AND NOT EXISTS (SELECT FROM eligibility_lists WHERE coupon_name = %(coupon_name)s)
        AND NOT EXISTS (
            SELECT FROM tickets WHERE coupon_name = %(coupon_name)s AND state IN ('waiting', 'started')
        )
        AND NOT EXISTS (SELECT FROM tickets WHERE coupon_name = %(coupon_name)s AND state = 'dead')
    RETURNING name
), blocks AS (
    DELETE FROM ticket_blocks USING deleted WHERE coupon_name = deleted.name
)
SELECT count(*) FROM deleted
"""

_COUNT_COUPON = f"""
SELECT
    (SELECT count(*) FROM eligibility_lists WHERE coupon_name = %(coupon_name)s),
    (SELECT count(*) FROM coupons WHERE name = %(coupon_name)s),
    (SELECT count(*) FROM user_claims WHERE coupon_name = %(coupon_name)s),
    (SELECT count(*) FROM codes WHERE coupon_name = %(coupon_name)s),
    ({COUNT_UNFINISHED})
"""  # noqa: S608 - of constants

_T = TypeVar("_T")


class PostgresMaintenance:
    """`ports.Maintenance` on PostgreSQL.

    If a transaction runs again after a commit in doubt, it finds less to do, so the reported numbers may be too low.

    Args:
        database: where statements run.
        observer: receives violated invariants.
        changes: told of each change to codes; by default, changes leave marks.
    """

    def __init__(self, database: Database, *, observer: StorageObserver, changes: CodeChanges | None = None) -> None:
        self._database = database
        self._changes = changes or CodeChanges()
        self._observer = observer

    async def coupons_with_due_holds(self, *, after: str, limit: int) -> list[str]:
        return [name for (name,) in await self._database.fetch(_DUE_COUPONS, {"after": after, "most": limit})]

    async def settle_holds(self, coupon_name: str, *, limit: int) -> int:
        coupons = {"coupon_names": [coupon_name], "most": limit}

        async def work(driver: Driver) -> tuple[int, set[str | None]]:
            async with driver.pipeline():
                await driver.execute("BEGIN", prepare=False)
                await driver.execute(LOCK_COUPONS, coupons)
                settled = await driver.execute(SETTLE_HOLDS, coupons)
                await serve_waiting_list(driver, [coupon_name])
                await driver.execute(UPDATE_PLAIN_UNTIL, coupons)
                types = await driver.execute(TYPES_OF, coupons)
                await self._changes.mark(driver, [coupon_name])
                await driver.execute("COMMIT", prepare=False)
            [(units, _)] = await settled.fetchall()
            return int(units), {coupon_type for (coupon_type,) in await types.fetchall()}

        units, types = await self._write(work)
        self._changes.committed(types)
        return units

    async def purge_answers(self, *, limit: int) -> int:
        return await self._count(_PURGE_ANSWERS, {"most": limit})

    async def purge_lists(self, *, limit: int) -> int:
        return await self._count(_PURGE_LISTS, {"most": limit})

    async def purge_fence(self, *, limit: int) -> int:
        return await self._count(PURGE_FENCE, {"most": limit})

    async def purge_tickets(self, *, limit: int) -> int:
        return await self._count(PURGE_TICKETS, {"most": limit})

    async def ended_coupons(self, *, after: str, limit: int, for_days: int) -> list[str]:
        parameters = {"after": after, "most": limit, "days": for_days}
        return [name for (name,) in await self._database.fetch(_ENDED_COUPONS, parameters)]

    async def purge_coupon(self, coupon_name: str, *, for_days: int, limit: int, actor: str) -> PurgeReport:
        parameters = {"coupon_name": coupon_name, "days": for_days, "most": limit}

        async def work(driver: Driver) -> tuple[PurgeReport, set[str | None]]:
            async with driver.pipeline():
                await driver.execute("BEGIN", prepare=False)
                await driver.execute(_LOCK_TO_REMOVE, parameters)
                await driver.execute(LOCK_QUEUE, parameters)
                ended = await driver.execute(_CHECK_ENDED, parameters)
            if not ended.rowcount:
                await driver.execute("ROLLBACK", prepare=False)
                return PurgeReport(), set()
            async with driver.pipeline():
                # First, because the coupon's type goes with it.
                read = await driver.execute(TYPES_OF, {"coupon_names": [coupon_name]})
                await self._changes.mark(driver, [coupon_name])
                removing = [
                    await driver.execute(statement, parameters)
                    for statement in (_PURGE_CLAIMS, _PURGE_CODES, _PURGE_LIST, END_OF_COUPON, _PURGE_COUPON)
                ]
            [(claims, claimed_codes)], [(other_codes,)], [(entries,)], [(tickets,)], [(coupons,)] = [
                await each.fetchall() for each in removing
            ]
            codes = claimed_codes + other_codes
            purged = PurgeReport(
                list_entries=entries, coupons=coupons, claims=claims, codes=codes, unfinished_tickets=tickets
            )
            async with driver.pipeline():
                if purged.rows:
                    await driver.execute(INSERT_ENTRY, parameters_of(_purging(coupon_name, purged, for_days, actor)))
                await driver.execute("COMMIT", prepare=False)
            return purged, {coupon_type for (coupon_type,) in await read.fetchall()}

        purged, types = await self._write(work)
        self._changes.committed(types)
        return purged

    async def count_purgeable(self) -> PurgeReport:
        [(answers,)] = await self._database.fetch(_COUNT_ANSWERS, {})
        [(entries,)] = await self._database.fetch(_COUNT_LISTS, {})
        [(tickets,)] = await self._database.fetch(COUNT_TICKETS, {})
        return PurgeReport(answers=answers, list_entries=entries, tickets=tickets)

    async def count_coupon(self, coupon_name: str) -> PurgeReport:
        which = {"coupon_name": coupon_name}
        [(entries, coupons, claims, codes, tickets)] = await self._database.fetch(_COUNT_COUPON, which)
        return PurgeReport(
            list_entries=entries, coupons=coupons, claims=claims, codes=codes, unfinished_tickets=tickets
        )

    async def _count(self, statement: str, parameters: dict[str, Any]) -> int:
        async def work(driver: Driver) -> int:
            [(count,)] = await (await driver.execute(statement.encode(), parameters)).fetchall()
            return int(count)

        return await self._write(work)

    async def _write(self, work: Callable[[Driver], Awaitable[_T]]) -> _T:
        async def attempt(driver: Driver, in_doubt: bool) -> _T:
            try:
                return await work(driver)
            except psycopg.errors.DeadlockDetected as error:
                raise RestartTransactionError from error

        try:
            return await self._database.run_transaction(attempt)
        except InvariantViolatedError:
            self._observer.invariant_violated()
            raise
        except (psycopg.IntegrityError, psycopg.DataError) as error:
            self._observer.invariant_violated()
            raise InvariantViolatedError("the database refused a change of a maintenance job") from error


def _purging(coupon_name: str, purged: PurgeReport, for_days: int, actor: str) -> AuditEntry:
    return AuditEntry(
        actor=actor,
        action="coupon.purge",
        subject_type="coupon",
        subject=coupon_name,
        details={
            "claims": purged.claims,
            "codes": purged.codes,
            "list_entries": purged.list_entries,
            "unfinished_tickets": purged.unfinished_tickets,
            "is_gone": bool(purged.coupons),
            "over_for_days": for_days,
        },
    )
