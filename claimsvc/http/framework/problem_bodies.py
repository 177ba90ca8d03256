"""Bodies of problems that say more than every problem does."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from claimsvc import domain
from claimsvc.http.server.problems import ProblemBody


@dataclass(frozen=True, slots=True)
class ReasonBody:
    """Why not. `rule` points into the coupon's `rules` (RFC 6901, as a URI fragment); null if it is none of them."""

    code: domain.ReasonCode
    rule: Annotated[str | None, Field(examples=["#/attributes/0"])]
    detail: str


@dataclass(frozen=True, slots=True)
class NotEligibleBody(ProblemBody):
    """Which rules are not met."""

    reasons: list[ReasonBody]


_DETAILS = {
    domain.ReasonCode.NOT_LISTED: "The user is not on the coupon's allow list.",
    domain.ReasonCode.DENIED: "The user is on the coupon's deny list.",
    domain.ReasonCode.ATTRIBUTE_MISSING: "An attribute that the coupon requires is missing.",
    domain.ReasonCode.ATTRIBUTE_REFUSED: "An attribute does not meet the coupon's rule.",
    domain.ReasonCode.MUST_HOLD: "The user has no claim of a required coupon.",
    domain.ReasonCode.MUST_NOT_HOLD: "The user has a claim of a coupon that excludes this one.",
    domain.ReasonCode.ALREADY_CLAIMED: "The user has as many units as the coupon allows.",
    domain.ReasonCode.ENDED: "The coupon can no longer be claimed.",
    domain.ReasonCode.PAUSED: "The coupon cannot be claimed for now.",
    domain.ReasonCode.NOT_STARTED: "The coupon cannot be claimed yet.",
    domain.ReasonCode.SOLD_OUT: "No unit of the coupon is left.",
}


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
