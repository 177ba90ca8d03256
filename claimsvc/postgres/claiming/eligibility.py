"""What is read of who may claim: membership in lists, and claims of the other coupons that rules name.

LIMIT keeps each of these a look-up for each claimant; see `admission`.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from claimsvc.domain import Rules

_CLAIMANTS = """
    SELECT DISTINCT coupon_name, user_id
    FROM unnest(%(names)s::text[], %(user_ids)s::text[]) AS asked (coupon_name, user_id)
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
"""Of each claimant, the lists in force that have them: the coupon, the user, and the list's kind."""

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
"""Of each claimant, the coupons named in rules that they have a claim of: that coupon, and the user.

The other coupons are not locked: it is true of one moment of the transaction.
"""

_RULES: TypeAdapter[Rules | None] = TypeAdapter(Rules | None)


def rules_of(document: Mapping[str, Any] | None) -> Rules | None:
    """A coupon's rules as `campaigns.rules` has them, which is as `dataclasses.asdict` gives them."""
    return _RULES.validate_python(document)
