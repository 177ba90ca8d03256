"""Bodies of problems that say more than every problem does."""

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from claimsvc import domain
from claimsvc.domain.outcomes import rows
from claimsvc.http.server.problems import ProblemBody

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
    # The document lists the codes, and the table of outcomes knows most of them.
    ReasonCode = StrEnum("ReasonCode", {code.upper().replace("-", "_"): str(code) for code in _DETAILS})
    ReasonCode.__doc__ = "Why a user is not eligible, or cannot claim in this moment."


@dataclass(frozen=True, slots=True)
class ReasonBody:
    """Why not. `rule` points into the coupon's `rules` (RFC 6901, as a URI fragment); null if it is none of them."""

    code: ReasonCode
    rule: Annotated[str | None, Field(examples=["#/attributes/0"])]
    detail: str


@dataclass(frozen=True, slots=True)
class NotEligibleBody(ProblemBody):
    """Which rules are not met."""

    reasons: list[ReasonBody]


def reason_body(reason: domain.Reason) -> ReasonBody:
    """A reason as it goes over the wire."""
    return ReasonBody(reason.code, reason.rule, _DETAILS[reason.code])


@dataclass(frozen=True, slots=True)
class RefusedRowBody:
    """A row that was not added; `code` is null where there is none that is fit to be shown."""

    row: Annotated[int, Field(ge=1)]
    code: str | None
    reason: domain.RowReason


@dataclass(frozen=True, slots=True)
class RowsRefusedBody(ProblemBody):
    """Which rows could not be added: the first 1000 of `rejected_count`."""

    rejected_count: Annotated[int, Field(ge=1)]
    rejected: list[RefusedRowBody]


def refused_bodies(rows: domain.RowsRefused | domain.CodesAdded) -> list[RefusedRowBody]:
    """Rows that were not added as they go over the wire."""
    return [RefusedRowBody(row.row, row.code or None, row.reason) for row in rows.refused]
