"""What a coupon's terms allow, but hardly anybody means: rules that never apply, or refuse everybody.

What is wrong at any time is refused by the model of the request. Here is what depends on the time, on other coupons or
on the settings, and so may become right.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime

from claimsvc.domain.coupons import Campaign
from claimsvc.domain.eligibility import EligibilityRules, Source
from claimsvc.domain.tickets import QueueOrder


@dataclass(frozen=True, slots=True)
class CouponWarning:
    """Terms that were accepted, and are probably not meant.

    Args:
        pointer: where: an RFC 6901 JSON pointer to the field, as a URI fragment.
        detail: what will happen, and what to do, as sentences.
    """

    pointer: str
    detail: str


def named_by(rules: EligibilityRules | None) -> frozenset[str]:
    """The names of coupons that rules name."""
    return frozenset() if rules is None else frozenset((*rules.holds, *rules.holds_not))


def warnings_of(
    name: str,
    campaign: Campaign,
    *,
    now: datetime,
    known: Collection[str] | None,
    has_tokens: bool | None,
) -> list[CouponWarning]:
    """Return the warnings about a coupon's terms.

    Args:
        name: of the coupon.
        campaign: its terms.
        now: the time.
        known: those of the coupons in its rules that exist; None if they were not looked up.
        has_tokens: whether users have tokens; None if that is unknown.
    """
    return [CouponWarning(f"#/{place}" if place else "#", text) for place, text in _found(name, campaign, now)] + [
        CouponWarning(f"#/rules/{place}", text)
        for place, text in _of_rules(name, campaign.rules or EligibilityRules(), known, has_tokens)
    ]


def _found(name: str, campaign: Campaign, now: datetime) -> Iterator[tuple[str, str]]:
    if campaign.archived_at is not None:
        yield "", f"{name} is archived: whatever its terms are, nobody can claim it."
    if campaign.ends_at is not None and campaign.ends_at <= now:
        yield "ends_at", "The end is in the past: nobody can claim the coupon. Choose a later end, or null for none."
    if campaign.claims_per_user is not None and campaign.claims_per_user < campaign.per_user_limit:
        most, limit = campaign.claims_per_user, campaign.per_user_limit
        text = f"A user may make {most} claims in all, and so never has {limit} units. Choose at least as many."
        yield "claims_per_user", text
    if campaign.queue is not None and campaign.queue.order is QueueOrder.DRAW and campaign.starts_at is None:
        yield (
            "queue/order",
            "Only who joins before `starts_at` is drawn by lot, and the coupon has none. Choose a start.",
        )


def _of_rules(
    name: str, rules: EligibilityRules, known: Collection[str] | None, has_tokens: bool | None
) -> Iterator[tuple[str, str]]:
    for place, rule in enumerate(rules.attributes):
        if rule.source is Source.TOKEN and has_tokens is False:
            yield (
                f"attributes/{place}/source",
                "The service verifies no tokens, so nobody meets this rule. Set CLAIMSVC_JWT_JWKS, or use `request`.",
            )
    for place, other in enumerate(rules.holds):
        if other == name:
            yield f"holds/{place}", "This is the coupon itself: nobody can claim it without having claimed it."
        elif known is not None and other not in known:
            yield f"holds/{place}", "There is no coupon of this name: until there is, nobody meets this rule."
    for place, other in enumerate(rules.holds_not):
        if other == name:
            yield f"holds_not/{place}", "This is the coupon itself: nobody can have more than one unit of it."
        elif known is not None and other not in known:
            yield f"holds_not/{place}", "There is no coupon of this name: until there is, this rule refuses nobody."
