"""Reads the facts of eligibility: membership in lists, and claims of the coupons that rules name.

LIMIT in the subqueries keeps the planner at one index look-up per claimant; see `fast_path`.
"""

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from claimsvc.domain import EligibilityRules

if TYPE_CHECKING:
    from pydantic import TypeAdapter

_CLAIMANTS = """
    SELECT DISTINCT coupon_name, user_id
    FROM unnest(%(names)s::text[], %(user_ids)s::text[]) AS requested (coupon_name, user_id)
"""

LISTED = f"""
SELECT claimant.coupon_name, claimant.user_id, list.kind
FROM ({_CLAIMANTS}) AS claimant
CROSS JOIN LATERAL (
    SELECT allow_version, deny_version FROM campaigns
    WHERE coupon_name = claimant.coupon_name AND (allow_version IS NOT NULL OR deny_version IS NOT NULL)
    LIMIT 1
) AS campaign
CROSS JOIN LATERAL (VALUES ('allow', campaign.allow_version), ('deny', campaign.deny_version)) AS list (kind, version)
CROSS JOIN LATERAL (
    SELECT FROM eligibility_lists
    WHERE coupon_name = claimant.coupon_name AND kind = list.kind AND version = list.version
        AND user_id = claimant.user_id
    LIMIT 1
) AS found
"""  # noqa: S608 - of constants
"""The active lists that contain each claimant: the coupon, the user, and the kind of the list."""

HELD_OF_OTHERS = f"""
SELECT DISTINCT other.name, claimant.user_id
FROM ({_CLAIMANTS}) AS claimant
CROSS JOIN LATERAL (
    SELECT rules FROM campaigns WHERE coupon_name = claimant.coupon_name AND rules IS NOT NULL LIMIT 1
) AS campaign
CROSS JOIN LATERAL jsonb_array_elements_text((rules -> 'holds') || (rules -> 'holds_not')) AS other (name)
CROSS JOIN LATERAL (
    SELECT FROM user_claims
    WHERE coupon_name = other.name AND user_id = claimant.user_id AND state = 'active'
        AND (held_until IS NULL OR held_until > now())
    LIMIT 1
) AS held
"""  # noqa: S608 - of constants
"""The coupons named in rules of which each claimant has an active claim: the other coupon, and the user.

The other coupons are not locked, so this holds only at one moment of the transaction.
"""


@cache
def _parser() -> "TypeAdapter[EligibilityRules]":
    from pydantic import TypeAdapter  # imported here, because most commands read no rules

    return TypeAdapter(EligibilityRules)


def rules_of(document: Mapping[str, Any] | None) -> EligibilityRules | None:
    """Parse the column `campaigns.rules`, which has the form of `dataclasses.asdict`."""
    return None if document is None else _parser().validate_python(document)
