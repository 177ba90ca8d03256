"""Who may claim a coupon: by lists, by attributes, and by claims of other coupons."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from claimsvc.domain.outcomes import Outcome, Refusal, outcome, rows

Scalar = str | int | float | bool
Attributes = Mapping[str, Scalar | Collection[Scalar]]
"""A user's attributes by name. Attributes of a token may have several values; those of a request have one."""


def attributes_of(token: Mapping[str, Any]) -> Attributes:
    """Return the claims of a token that eligibility rules can use; nested values are left out."""
    attributes: dict[str, Scalar | Collection[Scalar]] = {}
    for name, value in token.items():
        if isinstance(value, Scalar):
            attributes[name] = value
        elif isinstance(value, list):
            attributes[name] = tuple(each for each in value if isinstance(each, Scalar))
    return attributes


class Source(StrEnum):
    """Where an attribute comes from: the request, whose sender may state anything, or a verified token."""

    REQUEST = "request"
    TOKEN = "token"  # noqa: S105 - no secret


class ListKind(StrEnum):
    """The two lists that a coupon may have: only users on its allow list may claim it, and none on its deny list."""

    ALLOW = "allow"
    DENY = "deny"


class ReasonCode(StrEnum):
    """Why a coupon's rules and lists do not admit a user. Clients depend on these values."""

    NOT_LISTED = "not-listed"
    DENIED = "denied"
    ATTRIBUTE_MISSING = "attribute-missing"
    ATTRIBUTE_REFUSED = "attribute-refused"
    MUST_HOLD = "must-hold"
    MUST_NOT_HOLD = "must-not-hold"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a user cannot claim a coupon.

    Args:
        code: a `ReasonCode`, or the name of the refusal that a claim would result in.
        rule: a JSON pointer to the rule that is not met, as a URI fragment (RFC 6901); None if it is not a rule.
    """

    code: str
    rule: str | None = None


@dataclass(frozen=True, slots=True)
class AttributeRule:
    """A rule about one attribute: it must be present, and meet every condition that is not None.

    Args:
        name: of the attribute.
        source: where the attribute must come from.
        one_of: the value, or at least one of several, must be among these.
        none_of: neither the value, nor any of several, may be among these.
        at_least: the value must be a number, and not less.
        at_most: the value must be a number, and not more.
    """

    name: str
    source: Source = Source.REQUEST
    one_of: tuple[Scalar, ...] | None = None
    none_of: tuple[Scalar, ...] | None = None
    at_least: int | float | None = None
    at_most: int | float | None = None

    def admits(self, value: Scalar | Collection[Scalar]) -> bool:
        """Whether the value meets all conditions."""
        if isinstance(value, str):  # the usual case, and it equals nothing but texts
            is_among = self.one_of is None or value in self.one_of
            is_other = self.none_of is None or value not in self.none_of
            return is_among and is_other and self.at_least is None and self.at_most is None
        values: Collection[Scalar] = (value,) if isinstance(value, Scalar) else value
        if self.one_of is not None and not any(_is_among(each, self.one_of) for each in values):
            return False
        if self.none_of is not None and any(_is_among(each, self.none_of) for each in values):
            return False
        if self.at_least is None and self.at_most is None:
            return True
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)


@dataclass(frozen=True, slots=True)
class EligibilityRules:
    """The rules of a coupon; a user must meet all of them.

    Args:
        attributes: rules about the user's attributes.
        holds: names of coupons of which the user must have an active claim.
        holds_not: names of coupons of which the user must have none.
    """

    attributes: tuple[AttributeRule, ...] = ()
    holds: tuple[str, ...] = ()
    holds_not: tuple[str, ...] = ()

    def admit_attributes(self, request: Attributes, token: Attributes) -> bool:
        """Whether every rule about attributes is met: `broken` has none of them to tell, in a third of the time.

        Args:
            request: attributes from the request.
            token: attributes from the verified token.
        """
        for rule in self.attributes:
            given = request if rule.source is Source.REQUEST else token
            if rule.name not in given or not rule.admits(given[rule.name]):
                return False
        return True

    def broken(self, request: Attributes, token: Attributes, holds: Callable[[str], bool]) -> Iterator[Reason]:
        """Yield a reason for each rule that is not met, in the order of the rules.

        Args:
            request: attributes from the request.
            token: attributes from the verified token.
            holds: returns whether the user has an active claim of the named coupon.
        """
        for place, rule in enumerate(self.attributes):
            given = request if rule.source is Source.REQUEST else token
            if rule.name not in given:
                yield Reason(ReasonCode.ATTRIBUTE_MISSING, f"#/attributes/{place}")
            elif not rule.admits(given[rule.name]):
                yield Reason(ReasonCode.ATTRIBUTE_REFUSED, f"#/attributes/{place}")
        for place, name in enumerate(self.holds):
            if not holds(name):
                yield Reason(ReasonCode.MUST_HOLD, f"#/holds/{place}")
        for place, name in enumerate(self.holds_not):
            if holds(name):
                yield Reason(ReasonCode.MUST_NOT_HOLD, f"#/holds_not/{place}")


def _is_among(value: Scalar, values: Collection[Scalar]) -> bool:
    """Compare as JSON does: 1 equals 1.0, but true is not a number."""
    return any(value == each and isinstance(value, bool) == isinstance(each, bool) for each in values)


def _is_lasting(eligibility: "Eligibility") -> bool:
    """Whether no reason is a refusal that may be over soon, such as `not-started`."""
    passing = {row.name for _, row in rows(Refusal) if row.is_stored is False}
    return passing.isdisjoint(reason.code for reason in eligibility.reasons)


@outcome("eligibility", is_stored=_is_lasting)
@dataclass(frozen=True, slots=True)
class Eligibility(Outcome):
    """Every reason for which a claim would be refused, in the order of the checks; empty if it would succeed."""

    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class ListReplaced:
    """A coupon's list after a change; `users` is how many it contains, None if it was removed."""

    coupon_name: str
    kind: ListKind
    users: int | None
