"""Creating and changing coupons. A change locks the coupon's row, so each claim sees the old terms or the new ones."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from secrets import token_bytes
from typing import Any

from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from claimsvc.domain import (
    PLAIN,
    AmountBelowClaimed,
    AmountIsCodes,
    AuditEntry,
    Campaign,
    Coupon,
    CouponDetail,
    CouponExists,
    IdempotencyKey,
    KeyReused,
    PeriodIsEmpty,
    Queue,
    QueueOrder,
    Replayed,
    StrategyName,
    UnknownCoupon,
)
from claimsvc.domain.coupon_changes import changes_of
from claimsvc.errors import UnavailableError
from claimsvc.ports import ChangeAnswer
from claimsvc.postgres.audit import INSERT_ENTRY, insert_entry, parameters_of
from claimsvc.postgres.claiming.fast_path_window import UPDATE_PLAIN_UNTIL
from claimsvc.postgres.claiming.fence import LOCK_COUPONS
from claimsvc.postgres.claiming.holds import SETTLE_HOLDS, holds_of
from claimsvc.postgres.claiming.waiting_list import serve_waiting_list
from claimsvc.postgres.code_changes import CodeChanges
from claimsvc.postgres.connections import Driver
from claimsvc.postgres.coupon_rows import CAMPAIGN_COLUMNS, COUPON_COLUMNS, TERMS, campaign_of, coupon_of
from claimsvc.postgres.database import Database
from claimsvc.postgres.idempotency import concluded, look_up

_SEED_BYTES = 32

_READ = f"""
SELECT {COUPON_COLUMNS}, {CAMPAIGN_COLUMNS},
    coalesce(campaign.has_codes, false) AS has_codes, campaign.code_types
FROM coupons AS coupon LEFT JOIN campaigns AS campaign ON campaign.coupon_name = coupon.name
WHERE coupon.name = %(name)s
"""  # noqa: S608 - of constants

_CREATE = f"""
WITH created AS (
    INSERT INTO coupons AS coupon (name, amount, remaining_amount, strategy, ended_count, plain_until)
    VALUES (%(name)s, %(amount)s, %(amount)s, %(strategy)s, 0, CASE
        WHEN %(paused)s OR %(per_user_limit)s > 1 OR %(starts_at)s::timestamptz > clock_timestamp()
            OR %(rules)s::jsonb IS NOT NULL
        THEN timestamptz 'epoch' ELSE %(ends_at)s::timestamptz
    END)
    ON CONFLICT (name) DO NOTHING
    RETURNING {COUPON_COLUMNS}
), with_terms AS (
    INSERT INTO campaigns
        (coupon_name, starts_at, ends_at, paused, per_user_limit, had_higher_limit, type, benefit, metadata, uses,
        rules, claims_per_user, queue, waiting_list_seconds)
    SELECT name, %(starts_at)s, %(ends_at)s, %(paused)s, %(per_user_limit)s, %(per_user_limit)s > 1, %(type)s,
        %(benefit)s::jsonb, %(metadata)s::jsonb, %(uses)s, %(rules)s::jsonb, %(claims_per_user)s,
        %(queue)s::jsonb, %(waiting_list_seconds)s
    FROM created WHERE %(has_terms)s
), with_draw AS (
    INSERT INTO queues (coupon_name, seed, head, next_place)
    SELECT name, %(seed)s::bytea, place, place FROM created CROSS JOIN (
        SELECT coalesce(max(place) + 1, 0) AS place FROM tickets WHERE coupon_name = %(name)s
    ) AS first
    WHERE %(seed)s::bytea IS NOT NULL
), audited AS (
    {
    insert_entry(
        "created",
        action="'coupon.create'",
        subject_type="'coupon'",
        subject="name",
        reason="''",
        details="jsonb_build_object('amount', amount, 'strategy', strategy)",
    )
}
)
SELECT * FROM created
"""  # noqa: S608 - of constants

_CHANGE_AMOUNT = """
UPDATE coupons SET amount = %(amount)s, remaining_amount = remaining_amount + (%(amount)s - amount)
WHERE name = %(name)s
"""

_CHANGE_TERMS = """
INSERT INTO campaigns AS old
    (coupon_name, starts_at, ends_at, paused, archived_at, per_user_limit, had_higher_limit, type, benefit, metadata,
    uses, rules, claims_per_user, queue, waiting_list_seconds)
VALUES (
    %(name)s, %(starts_at)s, %(ends_at)s, %(paused)s,
    CASE WHEN %(archived)s THEN clock_timestamp() END, %(per_user_limit)s, %(per_user_limit)s > 1,
    %(type)s, %(benefit)s, %(metadata)s, %(uses)s, %(rules)s, %(claims_per_user)s,
    %(queue)s, %(waiting_list_seconds)s
)
ON CONFLICT (coupon_name) DO UPDATE SET
    starts_at = excluded.starts_at, ends_at = excluded.ends_at, paused = excluded.paused,
    archived_at = coalesce(old.archived_at, excluded.archived_at), per_user_limit = excluded.per_user_limit,
    had_higher_limit = old.had_higher_limit OR excluded.had_higher_limit, type = excluded.type,
    benefit = excluded.benefit, metadata = excluded.metadata, uses = excluded.uses, rules = excluded.rules,
    claims_per_user = excluded.claims_per_user, queue = excluded.queue,
    waiting_list_seconds = excluded.waiting_list_seconds
"""


# A seed whose hash was published stays.
_OPEN_DRAW = """
INSERT INTO queues AS queue (coupon_name, seed, head, next_place)
SELECT %(name)s, %(seed)s::bytea, coalesce(max(place) + 1, 0), coalesce(max(place) + 1, 0)
FROM tickets WHERE coupon_name = %(name)s
HAVING %(seed)s::bytea IS NOT NULL
ON CONFLICT (coupon_name) DO UPDATE SET seed = coalesce(queue.seed, excluded.seed)
"""
# Tickets that wait, or are tried again, are started at the pace of the new terms.
_WAKE_QUEUE = "UPDATE queues SET due_at = clock_timestamp() WHERE coupon_name = %(name)s"


class PostgresCampaigns:
    """`ports.Campaigns` on PostgreSQL.

    Args:
        database: where statements run.
        changes: told of each change to codes, and to the types of coupons with codes.
    """

    def __init__(self, database: Database, *, changes: CodeChanges) -> None:
        self._database = database
        self._changes = changes

    async def create(
        self,
        name: str,
        amount: int,
        strategy: StrategyName,
        campaign: Campaign,
        idempotency_key: IdempotencyKey | None = None,
        *,
        actor: str,
        request_id: str | None = None,
    ) -> Coupon | CouponExists | Replayed | KeyReused:
        terms = asdict(campaign) | {"benefit": _json(campaign.benefit), "metadata": _json(campaign.metadata)}
        terms |= {"rules": _json(terms["rules"]), "queue": _json(terms["queue"])}
        parameters = {"name": name, "amount": amount, "strategy": strategy, "has_terms": campaign != PLAIN, **terms}
        parameters |= {"actor": actor, "request_id": request_id, "seed": _seed_of(campaign.queue)}

        async def work(driver: Driver, in_doubt: bool) -> Coupon | CouponExists | Replayed | KeyReused:
            async with driver.pipeline():
                await driver.execute("BEGIN", prepare=False)
                stored = await look_up(driver, idempotency_key)
                created = await driver.cursor(row_factory=dict_row).execute(_CREATE, parameters)
            row = await created.fetchone()
            if row is None and in_doubt and idempotency_key is None:
                raise UnavailableError(
                    "the coupon exists; this request may have created it: look it up", dependency="postgresql"
                )
            return await concluded(
                driver, idempotency_key, stored, CouponExists() if row is None else coupon_of(row), in_doubt
            )

        return await self._database.run_transaction(work)

    async def change(
        self,
        name: str,
        change: Mapping[str, Any],
        entry: AuditEntry,
        *,
        archive: bool = False,
        idempotency_key: IdempotencyKey | None = None,
    ) -> ChangeAnswer:
        types: set[str | None] = set()

        async def work(driver: Driver, in_doubt: bool) -> ChangeAnswer:
            coupons = {"coupon_names": [name]}
            async with driver.pipeline():
                await driver.execute("BEGIN", prepare=False)
                await driver.execute(LOCK_COUPONS, coupons)
                await driver.execute(SETTLE_HOLDS, holds_of([name]))
                await self._changes.mark(driver, [name])
                stored = await look_up(driver, idempotency_key)
                read = await _read(driver, name)
            row = await read.fetchone()
            refusal = _refusal(row, change)
            if row is not None and row["has_codes"]:
                types.update({row["type"], change.get("type", row["type"]), *(row["code_types"] or ())})
            if row is None or refusal is not None:
                return await concluded(driver, idempotency_key, stored, refusal or UnknownCoupon(), in_doubt)
            old = campaign_of(row)
            terms = {term: change.get(term, getattr(old, term)) for term in TERMS}
            terms |= {"benefit": _json(terms["benefit"]), "metadata": _json(terms["metadata"]), "archived": archive}
            for name_ in ("rules", "queue"):
                terms[name_] = _json(asdict(terms[name_]) if terms[name_] is not None else None)
            async with driver.pipeline():
                if "amount" in change:
                    await driver.execute(_CHANGE_AMOUNT, {"name": name, "amount": change["amount"]})
                await driver.execute(_CHANGE_TERMS, {"name": name, **terms})
                if "type" in change:
                    await self._changes.mark(driver, [name])
                await serve_waiting_list(driver, [name])
                await driver.execute(UPDATE_PLAIN_UNTIL, coupons)
                seed = _seed_of(change.get("queue"))
                await driver.execute(_OPEN_DRAW, {"name": name, "seed": seed})
                await driver.execute(_WAKE_QUEUE, {"name": name})
                await driver.execute(INSERT_ENTRY, parameters_of(_with_changes(entry, row, change)))
                read = await _read(driver, name)
            [changed] = await read.fetchall()
            detail = CouponDetail(coupon_of(changed), (), campaign_of(changed))
            return await concluded(driver, idempotency_key, stored, detail, in_doubt)

        answer = await self._database.run_transaction(work)
        self._changes.committed(types)
        return answer


def _refusal(
    row: Mapping[str, Any] | None, change: Mapping[str, Any]
) -> AmountBelowClaimed | AmountIsCodes | PeriodIsEmpty | None:
    if row is None:
        return None
    if row["has_codes"] and change.get("amount", row["amount"]) != row["amount"]:
        return AmountIsCodes()
    claimed = row["amount"] - row["remaining_amount"]
    if change.get("amount", claimed) < claimed:
        return AmountBelowClaimed(claimed)
    period = {name: change.get(name, row[name]) for name in ("starts_at", "ends_at")}
    return PeriodIsEmpty() if Campaign(**period).is_empty() else None


def _with_changes(entry: AuditEntry, row: Mapping[str, Any], change: Mapping[str, Any]) -> AuditEntry:
    changes = changes_of(coupon_of(row), campaign_of(row), change)
    return replace(entry, details={**entry.details, "changes": changes}) if change else entry


async def _read(driver: Driver, name: str) -> Any:
    return await driver.cursor(row_factory=dict_row).execute(_READ, {"name": name})


def _seed_of(queue: Queue | None) -> bytes | None:
    """Return the seed of a draw; None if the order of the queue is not drawn."""
    return token_bytes(_SEED_BYTES) if queue is not None and queue.order is QueueOrder.DRAW else None


def _json(value: Mapping[str, Any] | None) -> Jsonb | None:
    return None if value is None else Jsonb(dict(value))
