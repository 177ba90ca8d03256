"""What a change of a coupon changed, for the audit: the old and the new value of each field.

Entries are never changed, and must name no user (decision 0018). Metadata is its owner's, and the values that a rule
lists may be ids or addresses of users, so of both only the numbers are told.
"""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from claimsvc.domain.coupons import Campaign, Coupon
from claimsvc.domain.eligibility import AttributeRule, EligibilityRules
from claimsvc.domain.tickets import Queue
from claimsvc.domain.times import format_time


def changes_of(coupon: Coupon, campaign: Campaign, change: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return `old` and `new` of each field that gets another value, in JSON's types, by the field's name.

    Args:
        coupon: the coupon before the change.
        campaign: its terms before the change.
        change: new values by the field names of `Campaign`, and `amount`.
    """
    changes = {}
    for field, new in sorted(change.items()):
        old = coupon.amount if field == "amount" else getattr(campaign, field)
        if old != new:
            changes[field] = {"old": _told(field, old), "new": _told(field, new)}
    return changes


def _told(field: str, value: Any) -> Any:
    if field == "metadata":
        return f"{len(value)} members"
    if isinstance(value, datetime):
        return format_time(value)
    if isinstance(value, EligibilityRules):
        told: dict[str, Any] = {"attributes": [_condition(rule) for rule in value.attributes]}
        told |= {"holds": list(value.holds), "holds_not": list(value.holds_not)}
        return {name: rules for name, rules in told.items() if rules}
    if isinstance(value, Queue):
        return asdict(value)
    return dict(value) if isinstance(value, Mapping) else value


def _condition(rule: AttributeRule) -> dict[str, Any]:
    told: dict[str, Any] = {"name": rule.name, "source": str(rule.source)}
    for name in ("one_of", "none_of"):
        if (values := getattr(rule, name)) is not None:
            told[name] = f"{len(values)} values"
    told |= {name: bound for name in ("at_least", "at_most") if (bound := getattr(rule, name)) is not None}
    return told
