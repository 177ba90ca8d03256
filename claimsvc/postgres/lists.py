"""Who may claim: asked without claiming, and the lists of those who may and may not.

A list is loaded as a new version, which nobody looks at, in small transactions that lock nothing of the coupon. One
short transaction under the coupon's lock then puts it in force, and the version before it is cleared away.
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
from claimsvc.postgres.claiming.fast_path import LOCK_COUPONS
from claimsvc.postgres.claiming.fast_path_window import RECKON_PLAINNESS
from claimsvc.postgres.claiming.full_path import FullPath
from claimsvc.postgres.connections import Driver
from claimsvc.postgres.database import Database
from claimsvc.postgres.idempotency import concluded, look_up

# Of no claim: nothing is made here.
_NO_ID = "00000000-0000-0000-0000-000000000000"
# So many take about a hundredth of a second.
_ADDED_AT_ONCE = 1000
_CLEARED_AT_ONCE = 1000
# After each of those, claims have the database and this process to themselves for so many times as long as it took.
_REST = 2.0

_BEGIN_VERSION = """
INSERT INTO eligibility_versions (coupon_name, kind) SELECT name, %(kind)s FROM coupons WHERE name = %(coupon_name)s
RETURNING version
"""

# In the order of the index, so that its pages are written one after the other.
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

# Done once, however often it is asked for. A version that was begun later, and is in force already, stays so.
_PUT_IN_FORCE = """
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

_PUT_OUT_OF_FORCE = """
WITH removed AS (
    UPDATE campaigns SET {column} = NULL WHERE coupon_name = %(coupon_name)s AND {column} IS NOT NULL
    RETURNING coupon_name
), audited AS (
    {audited}
)
SELECT count(*) FROM removed
"""

# Those that are complete and no more in force; and those that nobody can be loading any more.
_OLD_VERSIONS = """
SELECT version FROM eligibility_versions
WHERE coupon_name = %(coupon_name)s AND kind = %(kind)s
    AND (users IS NOT NULL OR begun_at < clock_timestamp() - interval '1 day')
    AND version IS DISTINCT FROM (SELECT {column} FROM campaigns WHERE coupon_name = %(coupon_name)s)
"""

# A transaction that is still to put it in force finds it complete, and does nothing.
_GIVE_UP = """
UPDATE eligibility_versions SET users = 0
WHERE coupon_name = %(coupon_name)s AND kind = %(kind)s AND version = %(version)s AND users IS NULL
"""

_CLEAR_USERS = """
WITH next_of_it AS (
    SELECT ctid, user_id FROM eligibility_lists
    WHERE coupon_name = %(coupon_name)s AND kind = %(kind)s AND version = %(version)s AND user_id > %(after)s
    ORDER BY user_id
    LIMIT %(limit)s
), cleared AS (
    DELETE FROM eligibility_lists WHERE ctid = ANY (ARRAY(SELECT ctid FROM next_of_it))
)
SELECT max(user_id) FROM next_of_it
"""

_CLEAR_VERSION = """
DELETE FROM eligibility_versions
WHERE coupon_name = %(coupon_name)s AND kind = %(kind)s AND version = %(version)s
"""


def _of_each_kind(statement: str, audited: str = "") -> Mapping[ListKind, str]:
    return {kind: statement.format(column=f"{kind}_version", audited=audited) for kind in ListKind}


_PUTS_IN_FORCE = _of_each_kind(_PUT_IN_FORCE, insert_entry("finished"))
_PUTS_OUT_OF_FORCE = _of_each_kind(_PUT_OUT_OF_FORCE, insert_entry("removed"))
_FINDS_OLD_VERSIONS = _of_each_kind(_OLD_VERSIONS)


class PostgresAudience:
    """`ports.Audience` on PostgreSQL.

    Args:
        database: where statements run.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._full_path = FullPath(database)

    async def eligibility(
        self, coupon_name: str, user_id: str, options: ClaimOptions, once: IdempotencyKey | None = None
    ) -> Eligibility | UnknownCoupon | Replayed | KeyReused:
        found = await self._full_path.obstacles(Attempt(_NO_ID, coupon_name, user_id, options))
        answer: Eligibility | UnknownCoupon
        if UnknownCoupon() in found:
            answer = UnknownCoupon()
        else:
            answer = Eligibility(tuple(reason for each in found for reason in _reasons(each)))
        if once is None:
            return answer

        async def conclude(driver: Driver, in_doubt: bool) -> Eligibility | UnknownCoupon | Replayed | KeyReused:
            async with driver.pipeline():
                await driver.execute("BEGIN", prepare=False)
                kept = await look_up(driver, once)
            return await concluded(driver, once, kept, answer, in_doubt)

        return await self._database.run_transaction(conclude)

    async def replace_list(
        self, coupon_name: str, kind: ListKind, users: AsyncIterator[Sequence[str]], entry: AuditEntry
    ) -> ListReplaced | UnknownCoupon:
        of_list = {"coupon_name": coupon_name, "kind": kind}
        begun = await self._execute(_BEGIN_VERSION, of_list)
        if not begun:
            return UnknownCoupon()
        version = {**of_list, "version": begun[0][0]}
        try:
            waiting: list[str] = []
            async for some in users:
                waiting += some
                if len(waiting) >= _ADDED_AT_ONCE:
                    await self._execute_at_leisure(_ADD_USERS, {**version, "users": waiting})
                    waiting = []
            await self._execute(_ADD_USERS, {**version, "users": waiting})
            [(count,)] = await self._execute(_COUNT_USERS, version)
            told = parameters_of(replace(entry, details={**entry.details, "users": count}))
            values = {**version, **told, "users": count}
            is_known = await self._under_lock(coupon_name, _PUTS_IN_FORCE[kind], values)
        except psycopg.errors.ForeignKeyViolation:
            is_known = False  # it was purged meanwhile
        except BaseException:
            await asyncio.shield(self._discard(version, kind))
            raise
        if not is_known:
            return UnknownCoupon()
        await self._clear_old_versions(of_list, kind)
        return ListReplaced(coupon_name, kind, count)

    async def remove_list(self, coupon_name: str, kind: ListKind, entry: AuditEntry) -> ListReplaced | UnknownCoupon:
        of_list = {"coupon_name": coupon_name, "kind": kind}
        if not await self._under_lock(coupon_name, _PUTS_OUT_OF_FORCE[kind], {**of_list, **parameters_of(entry)}):
            return UnknownCoupon()
        await self._clear_old_versions(of_list, kind)
        return ListReplaced(coupon_name, kind, None)

    async def _under_lock(self, coupon_name: str, statement: str, parameters: Mapping[str, Any]) -> bool:
        """Execute a statement while the coupon's row is locked; whether there is such a coupon."""
        coupons = {"coupon_names": [coupon_name]}

        async def work(driver: Driver, in_doubt: bool) -> bool:
            async with driver.pipeline():
                await driver.execute("BEGIN", prepare=False)
                locked = await driver.execute(LOCK_COUPONS, coupons)
                await driver.execute(statement, parameters)
                await driver.execute(RECKON_PLAINNESS, coupons)
                await driver.execute("COMMIT", prepare=False)
            return bool(await locked.fetchall())

        return await self._database.run_transaction(work)

    async def _discard(self, version: Mapping[str, Any], kind: ListKind) -> None:
        """Clear away what was loaded in vain, unless it is in force all the same, because its end was in doubt."""
        with suppress(UnavailableError):
            await self._execute(_GIVE_UP, version)
            await self._clear_old_versions(version, kind)

    async def _clear_old_versions(self, of_list: Mapping[str, Any], kind: ListKind) -> None:
        """What cannot be cleared away now is found by whoever replaces the list next."""
        with suppress(UnavailableError):
            for (version,) in await self._execute(_FINDS_OLD_VERSIONS[kind], of_list):
                await self._clear({**of_list, "version": version})

    async def _clear(self, version: Mapping[str, Any]) -> None:
        after: str | None = ""
        while after is not None:
            limits = {"after": after, "limit": _CLEARED_AT_ONCE}
            [(after,)] = await self._execute_at_leisure(_CLEAR_USERS, {**version, **limits})
        await self._execute(_CLEAR_VERSION, version)

    async def _execute_at_leisure(self, statement: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        started = time.monotonic()
        rows = await self._execute(statement, parameters)
        await asyncio.sleep(_REST * (time.monotonic() - started))
        return rows

    async def _execute(self, statement: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """One statement, a transaction by itself; each of those above may be carried out twice."""

        async def work(driver: Driver, in_doubt: bool) -> list[tuple[Any, ...]]:
            done = await driver.execute(statement, parameters)
            return await done.fetchall() if done.description else []

        return await self._database.run_transaction(work)


def _reasons(refusal: ClaimOutcome) -> tuple[Reason, ...]:
    if isinstance(refusal, NotEligible):
        return refusal.reasons
    return (Reason(name_of(refusal)),)
