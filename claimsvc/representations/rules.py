"""Models of a coupon's eligibility rules."""

from dataclasses import asdict
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from claimsvc import domain
from claimsvc.representations.fields import (
    MAX_ENTRIES,
    AttributeName,
    CouponName,
    Number,
    Request,
    Scalar,
    at_most,
    bytes_of_jsonb,
)
from claimsvc.representations.mistakes import broken_rule

MAX_RULES = 20


MAX_VALUES = 200


MAX_RULES_BYTES = 16_384


_VALUES = "an array of 1 to 200 strings, numbers, true or false"
# Two aliases, because one value cannot be an example of both.
_Included = Annotated[
    list[Annotated[Scalar, Field(examples=[20])]],
    Field(min_length=1, max_length=MAX_VALUES, fail_fast=True, description=_VALUES, examples=[[20, 30]]),
]
_Excluded = Annotated[
    list[Annotated[Scalar, Field(examples=[25])]],
    Field(min_length=1, max_length=MAX_VALUES, fail_fast=True, description=_VALUES, examples=[[25]]),
]


class AttributeRule(Request):
    """A rule about an attribute. The attribute is required, and must satisfy every condition that is given.

    The examples of the fields make a rule that can be met, because programs try them together.
    """

    name: Annotated[AttributeName, Field(examples=["age"])]
    source: Annotated[
        domain.Source,
        Field(
            strict=False,
            description="`request` (the claim's `attributes`) or `token` (the user's verified token)",
            examples=["request"],
        ),
    ] = domain.Source.REQUEST
    one_of: _Included | None = None
    none_of: _Excluded | None = None
    at_least: Annotated[Number, Field(examples=[19])] | None = None
    at_most: Annotated[Number, Field(examples=[65])] | None = None

    @model_validator(mode="after")
    def _can_be_met(self) -> Self:
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise broken_rule("`at_most` must not be less than `at_least`: no number meets both.")
        if self.one_of is not None and not self._admits_one():
            raise broken_rule(
                "At least one value of `one_of` must meet the rule's other conditions: none does, so nobody would."
            )
        if self.at_least is not None and self.at_least == self.at_most and not self.rule().admits(self.at_least):
            raise broken_rule("`none_of` must not have the only number between `at_least` and `at_most`.")
        return self

    def _admits_one(self) -> bool:
        """Whether a value of `one_of` meets the other conditions. By sets: the arrays together may be long."""
        refused = {_as_json(value) for value in self.none_of or ()}
        bounds = domain.AttributeRule(self.name, at_least=self.at_least, at_most=self.at_most)
        return any(_as_json(value) not in refused and bounds.admits(value) for value in self.one_of or ())

    def rule(self) -> domain.AttributeRule:
        """The rule as a domain value."""
        return domain.AttributeRule(
            self.name,
            self.source,
            one_of=_frozen(self.one_of),
            none_of=_frozen(self.none_of),
            at_least=self.at_least,
            at_most=self.at_most,
        )


_AttributeRule = Annotated[
    AttributeRule,
    Field(
        description="an object with the attribute's `name`, and conditions that one value can meet together",
        examples=[{"name": "country", "one_of": ["KR", "JP"]}],
    ),
    at_most(MAX_ENTRIES),
]
_NAMES = "an array of at most 20 names of coupons"
# Two aliases, because their examples have to be names that differ.
_Held = Annotated[
    list[Annotated[CouponName, Field(examples=["winter-sale"])]],
    Field(max_length=MAX_RULES, description=_NAMES, examples=[["winter-sale"]]),
    at_most(MAX_RULES),
]
_NotHeld = Annotated[
    list[Annotated[CouponName, Field(examples=["spring-sale"])]],
    Field(max_length=MAX_RULES, description=_NAMES, examples=[["spring-sale"]]),
    at_most(MAX_RULES),
]


class Rules(Request):
    """Eligibility rules: a user may claim the coupon if all of them are met."""

    attributes: Annotated[
        list[_AttributeRule],
        Field(
            max_length=MAX_RULES,
            description="an array of at most 20 rules about attributes",
            examples=[[{"name": "country", "one_of": ["KR", "JP"]}]],
        ),
        at_most(MAX_RULES),
    ] = Field(default_factory=list)
    holds: _Held = Field(default_factory=list)
    holds_not: _NotHeld = Field(default_factory=list)

    @model_validator(mode="after")
    def _can_be_met(self) -> Self:
        if set(self.holds) & set(self.holds_not):
            raise broken_rule("`holds` and `holds_not` must not name the same coupon: nobody can meet both.")
        return self

    def rules(self) -> domain.EligibilityRules | None:
        """The rules as domain values; None if there are none."""
        attributes = tuple(each.rule() for each in self.attributes)
        found = domain.EligibilityRules(attributes, tuple(self.holds), tuple(self.holds_not))
        return found if found != domain.EligibilityRules() else None


def _as_json(value: Scalar) -> tuple[bool, Scalar]:
    """A value that is equal as in JSON: 1 and 1.0 are, 1 and true are not."""
    return isinstance(value, bool), value


def _frozen(values: list[Scalar] | None) -> tuple[domain.Scalar, ...] | None:
    return None if values is None else tuple(values)


def _check_size(rules: Rules) -> Rules:
    if bytes_of_jsonb(rules.model_dump(mode="json")) > MAX_RULES_BYTES:
        raise ValueError(f"Larger than {MAX_RULES_BYTES} bytes")
    return rules


CouponRules = Annotated[
    Rules,
    AfterValidator(_check_size),
    Field(
        description="an object with rules about `attributes`, and the names of coupons of which the user must have a "
        "claim (`holds`) or must not have one (`holds_not`); at most 20 of each, and 16384 bytes in all",
        examples=[{"attributes": [{"name": "country", "one_of": ["KR", "JP"]}], "holds_not": ["spring-sale"]}],
    ),
    at_most(MAX_ENTRIES),
]


def rules_body(rules: domain.EligibilityRules | None) -> dict[str, Any] | None:
    """The body of a coupon's rules, without empty members; None if there are no rules."""
    if rules is None:
        return None
    found = {name: value for name, value in asdict(rules).items() if value}
    if rules.attributes:
        found["attributes"] = [
            {name: value for name, value in each.items() if value is not None} for each in found["attributes"]
        ]
    return found
