"""Eligibility checks, and the allow and deny lists of coupons.

A list is loaded as a new, inactive version, in small transactions that do not lock the coupon. One short transaction
that locks the coupon's row then activates it, and the previous version is deleted.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import psycopg

from claimsvc.domain import (
    Attempt,
    AuditEntry,
    ClaimOptions,
    ClaimOutcome,
    Eligibility,
    IdempotencyKey,
    KeyReused,
    ListKind,
    ListReplaced,
    NotEligible,
    Reason,
    Replayed,
    UnknownCoupon,
)
from claimsvc.domain.outcomes import name_of
from claimsvc.errors import UnavailableError
from claimsvc.postgres.audit import insert_entry, parameters_of
from claimsvc.postgres.claiming.fast_path_window import UPDATE_PLAIN_UNTIL
from claimsvc.postgres.claiming.fence import LOCK_COUPONS
from claimsvc.postgres.claiming.full_path import FullPath
from claimsvc.postgres.connections import Driver
from claimsvc.postgres.database import Database
from claimsvc.postgres.idempotency import concluded, look_up

# A placeholder: an eligibility check makes no claim.
_NO_ID = "00000000-0000-0000-0000-000000000000"
# About 10 ms each.
_ADDED_AT_ONCE = 1000
_CLEARED_AT_ONCE = 1000
# After each chunk, loading pauses for this many times its duration, to leave the database and this process to claims.
_REST = 2.0

_START_VERSION = """
INSERT INTO eligibility_versions (coupon_name, kind) SELECT name, %(kind)s FROM coupons WHERE name = %(coupon_name)s
RETURNING version
"""

# In the order of the index, so that its pages are written sequentially.
_ADD_USERS = """
INSERT INTO eligibility_lists (coupon_name, kind, version, user_id)
SELECT %(coupon_name)s, %(kind)s, %(version)s, user_id FROM unnest(%(users)s::text[]) AS listed (user_id)
ORDER BY user_id COLLATE "C"
ON CONFLICT DO NOTHING
"""

_COUNT_USERS = """
SELECT count(*) FROM eligibility_lists
WHERE coupon_name = %(coupon_name)s AND kind = %(kind)s AND version = %(version)s
"""

# Safe to repeat: only the first run has an effect. A version whose loading started later stays active.
_ACTIVATE = """
WITH finished AS (
    UPDATE eligibility_versions SET users = %(users)s
    WHERE coupon_name = %(coupon_name)s AND kind = %(kind)s AND version = %(version)s AND users IS NULL
    RETURNING coupon_name, version
), audited AS (
    {audited}
)
INSERT INTO campaigns AS old (coupon_name, {column}) SELECT coupon_name, version FROM finished
ON CONFLICT (coupon_name) DO UPDATE SET {column} = greatest(old.{column}, excluded.{column})
"""

_DEACTIVATE = """
WITH removed AS (
    UPDATE campaigns SET {column} = NULL WHERE coupon_name = %(coupon_name)s AND {column} IS NOT NULL
    RETURNING coupon_name
), audited AS (
    {audited}
)
SELECT count(*) FROM removed
"""

# Versions that are complete but not active, and unfinished ones that are too old to be still loading.
_OLD_VERSIONS = """
SELECT version FROM eligibility_versions
WHERE coupon_name = %(coupon_name)s AND kind = %(kind)s
    AND (users IS NOT NULL OR begun_at < clock_timestamp() - interval '1 day')
    AND version IS DISTINCT FROM (SELECT {column} FROM campaigns WHERE coupon_name = %(coupon_name)s)
"""

# Marks a version as complete, so that a pending transaction that would activate it does nothing.
_ABANDON = """
UPDATE eligibility_versions SET users = 0
WHERE coupon_name = %(coupon_name)s AND kind = %(kind)s AND version = %(version)s AND users IS NULL
"""

_CLEAR_USERS = """
WITH page AS (
    SELECT ctid, user_id FROM eligibility_lists
    WHERE coupon_name = %(coupon_name)s AND kind = %(kind)s AND version = %(version)s AND user_id > %(after)s
    ORDER BY user_id
    LIMIT %(limit)s
), cleared AS (
    DELETE FROM eligibility_lists WHERE ctid = ANY (ARRAY(SELECT ctid FROM page))
)
SELECT max(user_id) FROM page
"""

_CLEAR_VERSION = """
DELETE FROM eligibility_versions
WHERE coupon_name = %(coupon_name)s AND kind = %(kind)s AND version = %(version)s
"""


def _by_kind(statement: str, audited: str = "") -> Mapping[ListKind, str]:
    return {kind: statement.format(column=f"{kind}_version", audited=audited) for kind in ListKind}


_ACTIVATE_BY_KIND = _by_kind(_ACTIVATE, insert_entry("finished"))
_DEACTIVATE_BY_KIND = _by_kind(_DEACTIVATE, insert_entry("removed"))
_OLD_VERSIONS_BY_KIND = _by_kind(_OLD_VERSIONS)


class PostgresAudience:
    """`ports.Audience` on PostgreSQL.

    Args:
        database: where statements run.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._full_path = FullPath(database)

    async def eligibility(
        self, coupon_name: str, user_id: str, options: ClaimOptions, idempotency_key: IdempotencyKey | None = None
    ) -> Eligibility | UnknownCoupon | Replayed | KeyReused:
        found = await self._full_path.obstacles(Attempt(_NO_ID, coupon_name, user_id, options))
        answer: Eligibility | UnknownCoupon
        if UnknownCoupon() in found:
            answer = UnknownCoupon()
        else:
            answer = Eligibility(tuple(reason for each in found for reason in _reasons(each)))
        if idempotency_key is None:
            return answer

        async def work(driver: Driver, in_doubt: bool) -> Eligibility | UnknownCoupon | Replayed | KeyReused:
            async with driver.pipeline():
                await driver.execute("BEGIN", prepare=False)
                stored = await look_up(driver, idempotency_key)
            return await concluded(driver, idempotency_key, stored, answer, in_doubt)

        return await self._database.run_transaction(work)

    async def replace_list(
        self, coupon_name: str, kind: ListKind, users: AsyncIterator[Sequence[str]], entry: AuditEntry
    ) -> ListReplaced | UnknownCoupon:
        of_list = {"coupon_name": coupon_name, "kind": kind}
        started = await self._execute(_START_VERSION, of_list)
        if not started:
            return UnknownCoupon()
        version = {**of_list, "version": started[0][0]}
        try:
            waiting: list[str] = []
            async for chunk in users:
                waiting += chunk
                if len(waiting) >= _ADDED_AT_ONCE:
                    await self._execute_and_rest(_ADD_USERS, {**version, "users": waiting})
                    waiting = []
            await self._execute(_ADD_USERS, {**version, "users": waiting})
            [(count,)] = await self._execute(_COUNT_USERS, version)
            audited = parameters_of(replace(entry, details={**entry.details, "users": count}))
            parameters = {**version, **audited, "users": count}
            exists = await self._under_lock(coupon_name, _ACTIVATE_BY_KIND[kind], parameters)
        except psycopg.errors.ForeignKeyViolation:
            exists = False  # it was purged meanwhile
        except BaseException:
            await asyncio.shield(self._discard(version, kind))
            raise
        if not exists:
            return UnknownCoupon()
        await self._clear_old_versions(of_list, kind)
        return ListReplaced(coupon_name, kind, count)

    async def remove_list(self, coupon_name: str, kind: ListKind, entry: AuditEntry) -> ListReplaced | UnknownCoupon:
        of_list = {"coupon_name": coupon_name, "kind": kind}
        if not await self._under_lock(coupon_name, _DEACTIVATE_BY_KIND[kind], {**of_list, **parameters_of(entry)}):
            return UnknownCoupon()
        await self._clear_old_versions(of_list, kind)
        return ListReplaced(coupon_name, kind, None)

    async def _under_lock(self, coupon_name: str, statement: str, parameters: Mapping[str, Any]) -> bool:
        """Execute a statement while the coupon's row is locked. Returns whether the coupon exists."""
        coupons = {"coupon_names": [coupon_name]}

        async def work(driver: Driver, in_doubt: bool) -> bool:
            async with driver.pipeline():
                await driver.execute("BEGIN", prepare=False)
                locked = await driver.execute(LOCK_COUPONS, coupons)
                await driver.execute(statement, parameters)
                await driver.execute(UPDATE_PLAIN_UNTIL, coupons)
                await driver.execute("COMMIT", prepare=False)
            return bool(await locked.fetchall())

        return await self._database.run_transaction(work)

    async def _discard(self, version: Mapping[str, Any], kind: ListKind) -> None:
        """Delete an abandoned version, unless it is active because a commit in doubt succeeded."""
        with suppress(UnavailableError):
            await self._execute(_ABANDON, version)
            await self._clear_old_versions(version, kind)

    async def _clear_old_versions(self, of_list: Mapping[str, Any], kind: ListKind) -> None:
        """Delete replaced versions. If that fails, the next replacement or the purge job deletes them."""
        with suppress(UnavailableError):
            for (version,) in await self._execute(_OLD_VERSIONS_BY_KIND[kind], of_list):
                await self._clear({**of_list, "version": version})

    async def _clear(self, version: Mapping[str, Any]) -> None:
        after: str | None = ""
        while after is not None:
            limits = {"after": after, "limit": _CLEARED_AT_ONCE}
            [(after,)] = await self._execute_and_rest(_CLEAR_USERS, {**version, **limits})
        await self._execute(_CLEAR_VERSION, version)

    async def _execute_and_rest(self, statement: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        started = time.monotonic()
        rows = await self._execute(statement, parameters)
        await asyncio.sleep(_REST * (time.monotonic() - started))
        return rows

    async def _execute(self, statement: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Execute one statement, a transaction by itself. It must be safe to repeat."""

        async def work(driver: Driver, in_doubt: bool) -> list[tuple[Any, ...]]:
            done = await driver.execute(statement, parameters)
            return await done.fetchall() if done.description else []

        return await self._database.run_transaction(work)


def _reasons(refusal: ClaimOutcome) -> tuple[Reason, ...]:
    if isinstance(refusal, NotEligible):
        return refusal.reasons
    return (Reason(name_of(refusal)),)
