"""Rows of coupons and their terms: whether there is one, the columns that are read, and the values made of them."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from claimsvc.domain import Campaign, Coupon, Queue, QueueOrder, StrategyName
from claimsvc.postgres.claiming.eligibility import rules_of
from claimsvc.postgres.database import Database

COUPON_COLUMNS = "coupon.name, coupon.amount, coupon.remaining_amount, coupon.strategy, coupon.created_at"
"""The columns of `Coupon`; `coupon` is its row in `coupons`."""
CAMPAIGN_COLUMNS = """campaign.starts_at, campaign.ends_at, coalesce(campaign.paused, false) AS paused,
    campaign.archived_at, coalesce(campaign.per_user_limit, 1) AS per_user_limit, campaign.type, campaign.benefit,
    coalesce(campaign.metadata, '{}') AS metadata, coalesce(campaign.uses, 1) AS uses,
    campaign.rules, campaign.allow_version IS NOT NULL AS has_allow_list,
    campaign.deny_version IS NOT NULL AS has_deny_list, campaign.claims_per_user, campaign.queue,
    campaign.waiting_list_seconds"""
"""The columns of `Campaign`; `campaign` is the coupon's row in `campaigns`, or NULL."""

TERMS = tuple(field.name for field in fields(Campaign))
"""The names of a coupon's terms."""


async def coupon_exists(database: Database, coupon_name: str) -> bool:
    """Whether there is a coupon of this name."""
    return bool(await database.fetch("SELECT FROM coupons WHERE name = %(name)s", {"name": coupon_name}))


def coupon_of(row: Mapping[str, Any]) -> Coupon:
    """Return the coupon of a row."""
    return Coupon(row["name"], row["amount"], row["remaining_amount"], StrategyName(row["strategy"]), row["created_at"])


def campaign_of(row: Mapping[str, Any]) -> Campaign:
    """Return the terms of a row with `CAMPAIGN_COLUMNS`."""
    terms = {term: row[term] for term in TERMS}
    return Campaign(**terms | {"rules": rules_of(row["rules"]), "queue": queue_of(row["queue"])})


def queue_of(document: Mapping[str, Any] | None) -> Queue | None:
    """Parse the column `campaigns.queue`, which has the form of `dataclasses.asdict`."""
    return None if document is None else Queue(**{**document, "order": QueueOrder(document["order"])})
