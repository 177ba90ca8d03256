"""Listing coupons by name: those of a type, in some states, whose names contain a text."""

from typing import Any

from claimsvc.domain import EVERY_STATE_BUT_ARCHIVED, CouponFilter, CouponState, ListedCoupon
from claimsvc.postgres.coupon_rows import COUPON_COLUMNS, coupon_of
from claimsvc.postgres.database import Database

# The first that applies, in the order in which claims are refused.
_STATE = """CASE
        WHEN campaign.archived_at IS NOT NULL THEN 'archived'
        WHEN campaign.ends_at <= now() THEN 'ended'
        WHEN campaign.paused THEN 'paused'
        WHEN campaign.starts_at > now() THEN 'upcoming'
        WHEN coupon.remaining_amount = 0 THEN 'sold-out'
        ELSE 'open'
    END"""
# ILIKE has the index `coupons_name_trgm_idx`; names are ASCII. Of a type, the names are read from the index on types,
# which has the coupons that are not archived.
_LIST = """
SELECT {columns}, campaign.type, campaign.benefit, campaign.starts_at, campaign.ends_at, {state} AS state
FROM {source}
WHERE {in_state}
    AND (%(like)s::text IS NULL OR coupon.name ILIKE %(like)s)
    AND (%(after)s::text IS NULL OR {name} > %(after)s)
    {of_type}
ORDER BY {name}
LIMIT %(limit)s
"""
# LIMIT, which changes nothing, makes the planner look campaigns up for the coupons that it lists, not for all that
# match.
_ALL = """coupons AS coupon
LEFT JOIN LATERAL (SELECT * FROM campaigns WHERE coupon_name = coupon.name LIMIT 1) AS campaign ON true"""
_TYPED = "campaigns AS campaign JOIN coupons AS coupon ON coupon.name = campaign.coupon_name"


async def list_coupons(
    database: Database, matching: CouponFilter, *, after: str | None, limit: int
) -> list[ListedCoupon]:
    """See `ports.Coupons.listed`."""
    statement, wanted = statement_of(matching, after=after, limit=limit)
    return [_listed(row) for row in await database.fetch_dicts(statement, wanted)]


def statement_of(matching: CouponFilter, *, after: str | None, limit: int) -> tuple[str, dict[str, Any]]:
    """Return the statement that lists coupons, and its parameters."""
    wanted = {
        "states": [state.value for state in matching.states],
        "like": f"%{_literal(matching.search)}%" if matching.search else None,
        "after": after,
        "type": matching.type or None,
        "limit": limit,
    }
    # The planner cannot estimate how many coupons are in a state, so it is not asked where it need not be.
    in_state = f"{_STATE} = ANY (%(states)s)"
    if matching.states == EVERY_STATE_BUT_ARCHIVED:
        in_state = "campaign.archived_at IS NULL"
    elif CouponState.ARCHIVED not in matching.states:
        in_state += " AND campaign.archived_at IS NULL"
    if matching.type:
        source, name, of_type = _TYPED, "campaign.coupon_name", "AND campaign.type = %(type)s"
    else:
        source, name = _ALL, "coupon.name"
        of_type = "AND campaign.type IS NULL" if matching.type == "" else ""
    statement = _LIST.format(
        columns=COUPON_COLUMNS, state=_STATE, source=source, in_state=in_state, name=name, of_type=of_type
    )
    return statement, wanted


def _literal(text: str) -> str:
    """The pattern of ILIKE for this text."""
    return text.translate({ord(character): f"\\{character}" for character in "\\%_"})


def _listed(row: dict[str, Any]) -> ListedCoupon:
    return ListedCoupon(
        coupon_of(row), CouponState(row["state"]), row["type"], row["benefit"], row["starts_at"], row["ends_at"]
    )
