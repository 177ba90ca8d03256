"""Who may claim a coupon: by lists, by what is said of them, and by what else they have claimed."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from claimsvc.domain.outcomes import Outcome, outcome

Scalar = str | int | float | bool
Attributes = Mapping[str, Scalar | Collection[Scalar]]
"""What is said of somebody, by name. Tokens say some things in the plural; requests do not."""


def attributes_of(token: Mapping[str, Any]) -> Attributes:
    """What rules can be about of all that a token says: not what is nested."""
    said: dict[str, Scalar | Collection[Scalar]] = {}
    for name, value in token.items():
        if isinstance(value, Scalar):
            said[name] = value
        elif isinstance(value, list):
            said[name] = tuple(each for each in value if isinstance(each, Scalar))
    return said


class Source(StrEnum):
    """Who says so: the request, whose sender may say anything, or a token that was verified."""

    REQUEST = "request"
    TOKEN = "token"  # noqa: S105 - no secret


class ListKind(StrEnum):
    """The two lists that a coupon may have: only those on the one may claim it, and nobody on the other."""

    ALLOW = "allow"
    DENY = "deny"


class ReasonCode(StrEnum):
    """Why the rules and lists of a coupon do not admit a user; clients decide by these."""

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
        rule: where the broken rule stands in the coupon's rules, as a URI fragment (RFC 6901); None if none is.
    """

    code: str
    rule: str | None = None


@dataclass(frozen=True, slots=True)
class AttributeRule:
    """An attribute that has to be there, and every condition on it that is not None has to hold.

    Args:
        one_of, none_of: it is one of these, or none of those. Of an attribute in the plural, some value or no value is.
        at_least, at_most: it is a number, and within these.
    """

    name: str
    source: Source = Source.REQUEST
    one_of: tuple[Scalar, ...] | None = None
    none_of: tuple[Scalar, ...] | None = None
    at_least: int | float | None = None
    at_most: int | float | None = None

    def admits(self, value: Scalar | Collection[Scalar]) -> bool:
        """Whether all of its conditions hold."""
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
class Rules:
    """All of these have to hold: of attributes, and of the user's active claims of other coupons, by their names."""

    attributes: tuple[AttributeRule, ...] = ()
    holds: tuple[str, ...] = ()
    holds_not: tuple[str, ...] = ()

    def broken(self, request: Attributes, token: Attributes, holds: Callable[[str], bool]) -> Iterator[Reason]:
        """The rules that do not hold, in their order.

        Args:
            request, token: what each of the sources says.
            holds: whether the user has a claim of the coupon of that name.
        """
        for place, rule in enumerate(self.attributes):
            said = request if rule.source is Source.REQUEST else token
            if rule.name not in said:
                yield Reason(ReasonCode.ATTRIBUTE_MISSING, f"#/attributes/{place}")
            elif not rule.admits(said[rule.name]):
                yield Reason(ReasonCode.ATTRIBUTE_REFUSED, f"#/attributes/{place}")
        for place, name in enumerate(self.holds):
            if not holds(name):
                yield Reason(ReasonCode.MUST_HOLD, f"#/holds/{place}")
        for place, name in enumerate(self.holds_not):
            if holds(name):
                yield Reason(ReasonCode.MUST_NOT_HOLD, f"#/holds_not/{place}")


def _is_among(value: Scalar, values: Collection[Scalar]) -> bool:
    """As JSON has it: 1 and 1.0 are the same number, and true is none."""
    return any(value == each and isinstance(value, bool) == isinstance(each, bool) for each in values)


@outcome("eligibility")
@dataclass(frozen=True, slots=True)
class Eligibility(Outcome):
    """Every reason that a claim would be refused for, the first one first; empty if it would succeed."""

    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class ListReplaced:
    """A coupon's list as it is now: of so many users, None if there is none."""

    coupon_name: str
    kind: ListKind
    users: int | None
