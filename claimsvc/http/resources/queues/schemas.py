"""The paths, queries and bodies of the routes of queues and dead letters."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar
from uuid import UUID

from pydantic import Field

from claimsvc import domain
from claimsvc.http.framework.parameters import DEFAULT_PAGE, Limit, some_of
from claimsvc.representations.fields import Reason, Request

_CURSOR_EXAMPLE = "019b2c5e7a317c429f0e2d4b8a6c1e90"


class TicketPages(Request):
    """The query of a list of tickets."""

    limit: Limit = DEFAULT_PAGE
    cursor: Annotated[
        str,
        Field(pattern=r"^[0-9a-f]{32}$", description="`next_cursor` of the previous page", examples=[_CURSOR_EXAMPLE]),
    ] = ""

    def after(self) -> str | None:
        """The id of the last ticket of the previous page; None for the first page."""
        return str(UUID(self.cursor)) if self.cursor else None


class TicketsQuery(TicketPages):
    """The query of a list of a coupon's tickets."""

    state: Annotated[
        str,
        Field(
            pattern=some_of(domain.TicketState),
            description="one or more of `waiting`, `started`, `claimed`, `refused`, `expired`, `left`, `dead`, "
            "separated by commas; empty for all",
            examples=["waiting,started"],
        ),
    ] = ""

    def states(self) -> frozenset[domain.TicketState]:
        """The states of the tickets that are listed."""
        return frozenset(map(domain.TicketState, self.state.split(",") if self.state else domain.TicketState))


class DeadLetterPath(Request):
    """The path of a dead letter."""

    id: Annotated[
        str,
        Field(
            pattern=r"^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$",
            description="a UUID with four hyphens",
            json_schema_extra={"format": "uuid"},
            examples=["019b2c5e-7a31-7c42-9f0e-2d4b8a6c1e90"],
        ),
    ]


class QueueReason(Request):
    """Why an operator does this; the reason is recorded in the audit."""

    EXAMPLE: ClassVar[Mapping[str, Any]] = {"reason": "the shop is down"}

    reason: Reason


def cursor_of(ticket: domain.Ticket) -> str:
    """The cursor of the page that begins after this ticket."""
    return UUID(ticket.id).hex
