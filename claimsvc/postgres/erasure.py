"""Erasing a user. All counts stay the same.

All claims and tickets of the user, ended ones included, get one random pseudonym as their user id; tickets that have
not ended leave. Entries of lists and stored answers that name the user are removed. Each coupon is one transaction that
locks the coupon's row, so no claim is decided in between. After a failure, run it again. The remaining claims then get
another pseudonym: storing the first one with the user id would itself be data to erase.
"""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from uuid import uuid4

from claimsvc.domain import AuditEntry, Erased
from claimsvc.postgres.audit import INSERT_ENTRY, insert_entry, parameters_of
from claimsvc.postgres.claiming.fence import LOCK_COUPONS
from claimsvc.postgres.connections import Driver
from claimsvc.postgres.database import Database
from claimsvc.postgres.tickets.joining import LOCK_QUEUE
from claimsvc.postgres.tickets.removing import ERASE_TICKETS, PAGE_OF_USER

# Some milliseconds each: a coupon needs a few index look-ups, an answer the search of its JSON.
_PAGE_COUPONS = 500
_PAGE_ANSWERS = 2_000
_PAGE_TICKETS = 5_000

# One look-up by the full key in each version of each list of the coupon. LIMIT, here and below, keeps the planner at
# index look-ups; see `fast_path`.
_ENTRIES = """
    SELECT entry.place
    FROM eligibility_versions AS list CROSS JOIN LATERAL (
        SELECT ctid AS place FROM eligibility_lists
        WHERE coupon_name = {coupon} AND kind = list.kind AND version = list.version AND user_id = %(user_id)s
        LIMIT 1
    ) AS entry
    WHERE list.coupon_name = {coupon}
"""

# There is no index by user alone, because every claim would have to maintain it. There is one by coupon and user for
# active claims, and one for ended claims.
_PAGE = f"""
WITH page AS MATERIALIZED (
    SELECT name FROM coupons WHERE name > %(after)s ORDER BY name LIMIT %(most)s
)
SELECT name,
    coalesce(
        (
            SELECT true FROM user_claims
            WHERE coupon_name = name AND user_id = %(user_id)s AND state = 'active' LIMIT 1
        ),
        (
            SELECT true FROM user_claims
            WHERE coupon_name = name AND user_id = %(user_id)s AND state <> 'active' LIMIT 1
        ),
        (SELECT true FROM ({_ENTRIES.format(coupon="page.name")}) AS entry LIMIT 1),
        false
    )
FROM page ORDER BY name
"""  # noqa: S608 - of constants

_AUDITED = insert_entry(
    "counted WHERE claims + list_entries > 0",
    action="'user.erase'",
    subject_type="'coupon'",
    subject="%(coupon_name)s",
    reason="''",
    details="jsonb_build_object('erased_as', %(erased_as)s::text, 'claims', claims, 'list_entries', list_entries)",
)
_ERASE = f"""
WITH current AS (
    UPDATE user_claims SET user_id = %(erased_as)s
    WHERE coupon_name = %(coupon_name)s AND user_id = %(user_id)s AND state = 'active'
    RETURNING 1
), ended AS (
    UPDATE user_claims SET user_id = %(erased_as)s
    WHERE coupon_name = %(coupon_name)s AND user_id = %(user_id)s AND state <> 'active'
    RETURNING 1
), listed AS (
    DELETE FROM eligibility_lists
    WHERE ctid = ANY (ARRAY({_ENTRIES.format(coupon="%(coupon_name)s")}))
    RETURNING 1
), counted AS (
    SELECT (SELECT count(*) FROM current) + (SELECT count(*) FROM ended) AS claims,
        (SELECT count(*) FROM listed) AS list_entries
), audited AS (
    {_AUDITED}
)
SELECT claims, list_entries FROM counted
"""  # noqa: S608 - of constants

# An answer names a user if it contains one of the user's claims, or if the user was the caller.
_ERASE_ANSWERS = """
WITH page AS MATERIALIZED (
    SELECT ctid AS place, caller, key, answer FROM idempotent_answers
    WHERE (caller, key) > (%(after_caller)s, %(after_key)s)
    ORDER BY caller, key
    LIMIT %(most)s
), deleted AS (
    DELETE FROM idempotent_answers
    WHERE ctid = ANY (ARRAY(
        SELECT place FROM page
        WHERE caller = %(caller)s OR jsonb_path_exists(
            answer, '$.**.user_id ? (@ == $user_id)', jsonb_build_object('user_id', %(user_id)s::text)
        )
    ))
    RETURNING 1
)
SELECT caller, key, (SELECT count(*) FROM deleted) FROM page ORDER BY caller DESC, key DESC LIMIT 1
"""

_T = TypeVar("_T")


class PostgresErasure:
    """`ports.Erasure` on PostgreSQL.

    Args:
        database: where statements run.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def erase(self, user_id: str, *, actor: str, request_id: str | None = None) -> Erased:
        erased = Erased(f"erased-{uuid4()}")
        parameters = {"user_id": user_id, "erased_as": erased.erased_as, "actor": actor, "request_id": request_id}
        # First, so that none of them is claimed any more.
        erased.tickets = await self._erase_tickets(parameters)
        after: str | None = ""
        while after is not None:
            page = await self._page(after, user_id)
            for coupon_name, names_user in page:
                if names_user:
                    claims, list_entries = await self._erase_from(coupon_name, parameters)
                    erased.coupons += 1
                    erased.claims += claims
                    erased.list_entries += list_entries
            after = page[-1][0] if page else None
        # Last, because a claim repeated under its key until now stored an answer that names the user.
        erased.answers = await self._erase_answers(user_id)
        details = {"coupons": erased.coupons, "claims": erased.claims, "list_entries": erased.list_entries}
        details |= {"answers": erased.answers, "tickets": erased.tickets}
        await self._write(
            lambda driver: driver.execute(
                INSERT_ENTRY,
                parameters_of(
                    AuditEntry(actor, "user.erase", "user", erased.erased_as, request_id=request_id, details=details)
                ),
            )
        )
        return erased

    async def _page(self, after: str, user_id: str) -> list[tuple[str, bool]]:
        async def query(driver: Driver) -> list[Any]:
            parameters = {"after": after, "most": _PAGE_COUPONS, "user_id": user_id}
            return await (await driver.execute(_PAGE.encode(), parameters)).fetchall()

        return await self._database.read(query)

    async def _erase_from(self, coupon_name: str, parameters: dict[str, Any]) -> tuple[int, int]:
        async def work(driver: Driver) -> tuple[int, int]:
            async with driver.pipeline():
                await driver.execute("BEGIN", prepare=False)
                await driver.execute(LOCK_COUPONS, {"coupon_names": [coupon_name]})
                done = await driver.execute(_ERASE.encode(), {**parameters, "coupon_name": coupon_name})
                await driver.execute("COMMIT", prepare=False)
            [(claims, list_entries)] = await done.fetchall()
            return claims, list_entries

        return await self._write(work)

    async def _erase_tickets(self, parameters: dict[str, Any]) -> int:
        count, place = 0, {"after_coupon": "", "after_place": -1}
        which = {"user_id": parameters["user_id"], "most": _PAGE_TICKETS}
        while page := await self._database.fetch(PAGE_OF_USER, {**which, **place}):
            for coupon_name, _, ids in page:
                if ids:
                    count += await self._erase_tickets_of(coupon_name, {**parameters, "ids": ids})
            place = {"after_coupon": page[-1][0], "after_place": page[-1][1]}
        return count

    async def _erase_tickets_of(self, coupon_name: str, parameters: dict[str, Any]) -> int:
        async def work(driver: Driver) -> int:
            async with driver.pipeline():
                await driver.execute("BEGIN", prepare=False)
                await driver.execute(LOCK_COUPONS, {"coupon_names": [coupon_name]})
                await driver.execute(LOCK_QUEUE, {"coupon_name": coupon_name})
                done = await driver.execute(ERASE_TICKETS.encode(), {**parameters, "coupon_name": coupon_name})
                await driver.execute("COMMIT", prepare=False)
            [(tickets,)] = await done.fetchall()
            return int(tickets)

        return await self._write(work)

    async def _erase_answers(self, user_id: str) -> int:
        count, place = 0, {"after_caller": "", "after_key": ""}
        parameters = {"user_id": user_id, "caller": f"user:{user_id}", "most": _PAGE_ANSWERS}

        async def work(driver: Driver) -> list[tuple[Any, ...]]:
            return await (await driver.execute(_ERASE_ANSWERS, {**parameters, **place})).fetchall()

        while last := await self._write(work):
            [(caller, key, deleted)] = last
            place = {"after_caller": caller, "after_key": key}
            count += deleted
        return count

    async def _write(self, work: Callable[[Driver], Awaitable[_T]]) -> _T:
        # If a statement runs again after a commit in doubt, it finds less to do, so counts may be too low.
        return await self._database.run_transaction(lambda driver, _: work(driver))
