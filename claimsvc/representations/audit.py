"""The audit: which entries are selected, and how they are shown."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import Field

from claimsvc import domain
from claimsvc.representations.fields import Request
from claimsvc.representations.times import StartsAt

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_VISIBLE = r"^[!-~]*$"
# Names of coupons may contain blanks, and codes Hangul.
_VISIBLE_OR_HANGUL = r"^([!-~가-힣]+( [!-~가-힣]+)*)?$"


class AuditSelection(Request):
    """Which entries of the audit are selected."""

    subject_type: Annotated[
        str,
        Field(
            pattern=r"^[a-z]{0,32}$",
            description="a type such as coupon, claim or key; empty for all",
            examples=["coupon"],
        ),
    ] = ""
    subject: Annotated[
        str,
        Field(
            max_length=domain.MAX_NAME_LENGTH,
            pattern=_VISIBLE_OR_HANGUL,
            description="a coupon's name, a code, or the id of a claim, a ticket or a key; empty for all",
            examples=["demo"],
        ),
    ] = ""
    actor: Annotated[
        str,
        Field(
            max_length=domain.MAX_NAME_LENGTH,
            pattern=_VISIBLE,
            description="the `actor` of entries; empty for all",
            examples=["key:3f9c21d07ab4"],
        ),
    ] = ""
    action: Annotated[
        str,
        Field(
            pattern=r"^[a-z.-]{0,64}$", description="the `action` of entries; empty for all", examples=["coupon.change"]
        ),
    ] = ""
    since: Annotated[
        StartsAt,
        Field(
            description="an RFC 3339 date-time with an offset; older entries are left out",
            examples=["2026-11-27T00:00:00Z"],
        ),
    ] = _EPOCH

    def filter(self) -> domain.AuditFilter:
        """The filter of the entries."""
        # Ids of claims and tickets are stored in lower case.
        subject = self.subject.lower() if self.subject_type in {"claim", "ticket"} else self.subject
        return domain.AuditFilter(
            self.subject_type or None, subject or None, self.actor or None, self.action or None, self.since
        )


@dataclass(frozen=True, slots=True)
class AuditEntryBody:
    """An audit entry. `actor` is a key, an operator, a job, or `claimant`; `subject` is what the action changed."""

    at: datetime
    actor: str
    action: str
    subject_type: str
    subject: str
    reason: str
    request_id: str | None
    details: Mapping[str, Any]


def entry_body(entry: domain.AuditEntry) -> AuditEntryBody:
    """The body of an entry.

    Raises:
        ValueError: the entry was not read from the database, and has no id.
    """
    return AuditEntryBody(
        audit_position(entry).at,
        entry.actor,
        entry.action,
        entry.subject_type,
        entry.subject,
        entry.reason,
        entry.request_id,
        entry.details,
    )


def audit_position(entry: domain.AuditEntry) -> domain.AuditPosition:
    """The place of an entry that was read from the audit."""
    if entry.at is None or entry.id is None:
        raise ValueError("the entry has no id: it was not read from the database")
    return domain.AuditPosition(entry.at, entry.id)
