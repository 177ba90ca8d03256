"""Changing a coupon and its rules, in transactions that hold its row: claims before and after see one or the other."""

from collections.abc import Mapping
from dataclasses import asdict, fields
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
    Replayed,
    StrategyName,
    UnknownCoupon,
)
from claimsvc.errors import UnavailableError
from claimsvc.ports import ChangeAnswer
from claimsvc.postgres.audit import INSERT_ENTRY, insert_entry, parameters_of
from claimsvc.postgres.claiming.code_pool import CodesChanged
from claimsvc.postgres.claiming.eligibility import rules_of
from claimsvc.postgres.claiming.fast_path import LOCK_COUPONS
from claimsvc.postgres.claiming.fast_path_window import RECKON_PLAINNESS
from claimsvc.postgres.claiming.full_path import SETTLE_HOLDS, holds_of
from claimsvc.postgres.connections import Driver
from claimsvc.postgres.database import Database
from claimsvc.postgres.idempotency import concluded, look_up

CAMPAIGN_COLUMNS = """campaign.starts_at, campaign.ends_at, coalesce(campaign.paused, false) AS paused,
    campaign.archived_at, coalesce(campaign.per_user_limit, 1) AS per_user_limit, campaign.type, campaign.benefit,
    coalesce(campaign.metadata, '{}') AS metadata, campaign.rules, campaign.allow_version IS NOT NULL AS has_allow_list,
    campaign.deny_version IS NOT NULL AS has_deny_list"""
"""What `Campaign` is made of, where `campaign` is the coupon's row in `campaigns`, or none."""

_READ = f"""
SELECT coupon.name, coupon.amount, coupon.remaining_amount, coupon.strategy, coupon.created_at, {CAMPAIGN_COLUMNS},
    coalesce(campaign.has_codes, false) AS has_codes
FROM coupons AS coupon LEFT JOIN campaigns AS campaign ON campaign.coupon_name = coupon.name
WHERE coupon.name = %(name)s
"""  # noqa: S608 - of constants

_CREATE = f"""
WITH made AS (
    INSERT INTO coupons (name, amount, remaining_amount, strategy, plain_until)
    VALUES (%(name)s, %(amount)s, %(amount)s, %(strategy)s, CASE
        WHEN %(paused)s OR %(per_user_limit)s > 1 OR %(starts_at)s::timestamptz > clock_timestamp()
            OR %(rules)s::jsonb IS NOT NULL
        THEN timestamptz 'epoch' ELSE %(ends_at)s::timestamptz
    END)
    ON CONFLICT (name) DO NOTHING
    RETURNING name, amount, remaining_amount, strategy, created_at
), ruled AS (
    INSERT INTO campaigns
        (coupon_name, starts_at, ends_at, paused, per_user_limit, had_higher_limit, type, benefit, metadata, rules)
    SELECT name, %(starts_at)s, %(ends_at)s, %(paused)s, %(per_user_limit)s, %(per_user_limit)s > 1, %(type)s,
        %(benefit)s::jsonb, %(metadata)s::jsonb, %(rules)s::jsonb
    FROM made WHERE %(has_rules)s
), audited AS (
    {
    insert_entry(
        "made",
        action="'coupon.create'",
        subject_type="'coupon'",
        subject="name",
        reason="''",
        details="jsonb_build_object('amount', amount, 'strategy', strategy)",
    )
}
)
SELECT * FROM made
"""  # noqa: S608 - of constants

_CHANGE_AMOUNT = """
UPDATE coupons SET amount = %(amount)s, remaining_amount = remaining_amount + (%(amount)s - amount)
WHERE name = %(name)s
"""

_CHANGE_RULES = """
INSERT INTO campaigns AS old
    (coupon_name, starts_at, ends_at, paused, archived_at, per_user_limit, had_higher_limit, type, benefit, metadata,
    rules)
VALUES (
    %(name)s, %(starts_at)s, %(ends_at)s, %(paused)s,
    CASE WHEN %(archived)s THEN clock_timestamp() END, %(per_user_limit)s, %(per_user_limit)s > 1,
    %(type)s, %(benefit)s, %(metadata)s, %(rules)s
)
ON CONFLICT (coupon_name) DO UPDATE SET
    starts_at = excluded.starts_at, ends_at = excluded.ends_at, paused = excluded.paused,
    archived_at = coalesce(old.archived_at, excluded.archived_at), per_user_limit = excluded.per_user_limit,
    had_higher_limit = old.had_higher_limit OR excluded.had_higher_limit, type = excluded.type,
    benefit = excluded.benefit, metadata = excluded.metadata, rules = excluded.rules
"""

_RULES = tuple(field.name for field in fields(Campaign))


class PostgresCampaigns:
    """`ports.Campaigns` on PostgreSQL.

    Args:
        database: where statements run.
        codes_changed: see `CodesChanged`.
    """

    def __init__(self, database: Database, *, codes_changed: CodesChanged) -> None:
        self._database = database
        self._codes_changed = codes_changed

    async def create(
        self,
        name: str,
        amount: int,
        strategy: StrategyName,
        campaign: Campaign,
        once: IdempotencyKey | None = None,
        *,
        actor: str,
        request_id: str | None = None,
    ) -> Coupon | CouponExists | Replayed | KeyReused:
        rules = asdict(campaign) | {"benefit": _json(campaign.benefit), "metadata": _json(campaign.metadata)}
        rules["rules"] = _json(rules["rules"])
        values = {"name": name, "amount": amount, "strategy": strategy, "has_rules": campaign != PLAIN, **rules}
        values |= {"actor": actor, "request_id": request_id}

        async def make(driver: Driver, in_doubt: bool) -> Coupon | CouponExists | Replayed | KeyReused:
            async with driver.pipeline():
                await driver.execute("BEGIN", prepare=False)
                kept = await look_up(driver, once)
                made = await driver.cursor(row_factory=dict_row).execute(_CREATE, values)
            row = await made.fetchone()
            if row is None and in_doubt and once is None:
                raise UnavailableError("it exists now, perhaps by this request; look it up", dependency="postgresql")
            return await concluded(driver, once, kept, CouponExists() if row is None else coupon_of(row), in_doubt)

        return await self._database.run_transaction(make)

    async def change(
        self,
        name: str,
        change: Mapping[str, Any],
        entry: AuditEntry,
        *,
        archive: bool = False,
        once: IdempotencyKey | None = None,
    ) -> ChangeAnswer:
        async def decide(driver: Driver, in_doubt: bool) -> ChangeAnswer:
            coupons = {"coupon_names": [name]}
            async with driver.pipeline():
                await driver.execute("BEGIN", prepare=False)
                await driver.execute(LOCK_COUPONS, coupons)
                await driver.execute(SETTLE_HOLDS, holds_of([name]))
                kept = await look_up(driver, once)
                before = await _read(driver, name)
            found = await before.fetchone()
            refusal = _refusal(found, change)
            if found is None or refusal is not None:
                return await concluded(driver, once, kept, refusal or UnknownCoupon(), in_doubt)
            old = campaign_of(found)
            rules = {rule: change.get(rule, getattr(old, rule)) for rule in _RULES}
            rules |= {"benefit": _json(rules["benefit"]), "metadata": _json(rules["metadata"]), "archived": archive}
            rules["rules"] = _json(asdict(rules["rules"]) if rules["rules"] is not None else None)
            async with driver.pipeline():
                if "amount" in change:
                    await driver.execute(_CHANGE_AMOUNT, {"name": name, "amount": change["amount"]})
                await driver.execute(_CHANGE_RULES, {"name": name, **rules})
                await driver.execute(RECKON_PLAINNESS, coupons)
                await driver.execute(INSERT_ENTRY, parameters_of(entry))
                after = await _read(driver, name)
            [row] = await after.fetchall()
            detail = CouponDetail(coupon_of(row), (), campaign_of(row))
            told = await concluded(driver, once, kept, detail, in_doubt)
            if found["has_codes"] and "type" in change:
                self._codes_changed({old.type, change["type"]})
            return told

        return await self._database.run_transaction(decide)


def _refusal(
    found: Mapping[str, Any] | None, change: Mapping[str, Any]
) -> AmountBelowClaimed | AmountIsCodes | PeriodIsEmpty | None:
    if found is None:
        return None
    if found["has_codes"] and change.get("amount", found["amount"]) != found["amount"]:
        return AmountIsCodes()
    claimed = found["amount"] - found["remaining_amount"]
    if change.get("amount", claimed) < claimed:
        return AmountBelowClaimed(claimed)
    period = {name: change.get(name, found[name]) for name in ("starts_at", "ends_at")}
    return PeriodIsEmpty() if Campaign(**period).is_empty() else None


async def _read(driver: Driver, name: str) -> Any:
    return await driver.cursor(row_factory=dict_row).execute(_READ, {"name": name})


def _json(value: Mapping[str, Any] | None) -> Jsonb | None:
    return None if value is None else Jsonb(dict(value))


def coupon_of(row: Mapping[str, Any]) -> Coupon:
    """The coupon in a row with its columns."""
    return Coupon(row["name"], row["amount"], row["remaining_amount"], StrategyName(row["strategy"]), row["created_at"])


def campaign_of(row: Mapping[str, Any]) -> Campaign:
    """The rules in a row that has `CAMPAIGN_COLUMNS`."""
    return Campaign(**{rule: row[rule] for rule in _RULES} | {"rules": rules_of(row["rules"])})
