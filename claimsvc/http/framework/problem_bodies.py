"""Bodies of problems with members beyond those of every problem."""

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from claimsvc import domain
from claimsvc.domain.outcomes import rows
from claimsvc.http.server.problems import ProblemBody
from claimsvc.representations.codes import RefusedRowBody

_DETAILS = {
    domain.ReasonCode.NOT_LISTED: "The user is not on the coupon's allow list.",
    domain.ReasonCode.DENIED: "The user is on the coupon's deny list.",
    domain.ReasonCode.ATTRIBUTE_MISSING: "An attribute that the coupon requires is missing.",
    domain.ReasonCode.ATTRIBUTE_REFUSED: "An attribute does not meet the coupon's rule.",
    domain.ReasonCode.MUST_HOLD: "The user has no claim of a required coupon.",
    domain.ReasonCode.MUST_NOT_HOLD: "The user has a claim of a coupon that excludes this one.",
    **{row.name: row.as_reason for _, row in rows() if row.as_reason},
}
if TYPE_CHECKING:
    ReasonCode = str
else:
    # An enumeration, because the OpenAPI document lists the codes. Most come from the table of outcomes.
    ReasonCode = StrEnum("ReasonCode", {code.upper().replace("-", "_"): str(code) for code in _DETAILS})
    ReasonCode.__doc__ = "Why the user is not eligible, or cannot claim now."


@dataclass(frozen=True, slots=True)
class ReasonBody:
    """Why the user cannot claim. `rule` is the place in the coupon's `rules` (an RFC 6901 JSON pointer as a URI
    fragment); null if no rule is the reason."""

    code: ReasonCode
    rule: Annotated[str | None, Field(examples=["#/attributes/0"])]
    detail: str


@dataclass(frozen=True, slots=True)
class NotEligibleBody(ProblemBody):
    """The user is not eligible; `reasons` lists every rule that is not met."""

    reasons: list[ReasonBody]


def reason_body(reason: domain.Reason) -> ReasonBody:
    """The body of a reason."""
    return ReasonBody(reason.code, reason.rule, _DETAILS[reason.code])


@dataclass(frozen=True, slots=True)
class RowsRefusedBody(ProblemBody):
    """No row was added, because some were rejected. `rejected` lists the first 1000 of `rejected_count`."""

    rejected_count: Annotated[int, Field(ge=1)]
    rejected: list[RefusedRowBody]
