"""Tickets: showing one, and what became of it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, cast

from pydantic import Field

from claimsvc import domain
from claimsvc.representations.claims import ClaimBody, ClaimWithoutCodeBody, listed_claim_body
from claimsvc.representations.fields import CouponName, UserId


@dataclass(frozen=True, slots=True)
class TicketClaimedBody:
    """The ticket's claim was made; `claim` is it, as it is now, without its code if the caller may not see that."""

    claim: ClaimBody | ClaimWithoutCodeBody


@dataclass(frozen=True, slots=True)
class TicketRefusedBody:
    """The ticket's claim was refused; `problem` is what the claim would have been answered (RFC 9457)."""

    problem: Annotated[
        dict[str, Any], Field(examples=[{"type": "/problems/sold-out", "title": "Sold out", "status": 409}])
    ]


@dataclass(frozen=True, slots=True)
class TicketBody:
    """A claim that waits in a queue. `state` is `waiting`, `started`, or one of the ends `claimed`, `refused`,
    `expired`, `left` and `dead`, which are final. `outcome` is null unless it was claimed or refused."""

    id: Annotated[str, Field(json_schema_extra={"format": "uuid"})]
    coupon_name: CouponName
    user_id: UserId
    state: domain.TicketState
    position: Annotated[
        int | None,
        Field(
            ge=0,
            description="its place in the queue, from 1; it never grows; 0 once it is started, null once it has ended, "
            "and while the order is still to be drawn",
        ),
    ]
    ahead: Annotated[int | None, Field(ge=0, description="how many wait before it; null unless that is known")]
    eta_seconds: Annotated[
        float | None,
        Field(description="in how many seconds it is started at the pace of late; null if that cannot be said"),
    ]
    stopped: Annotated[
        domain.QueueStop | None,
        Field(description="why no ticket of its queue is started now; null if they are, or if it has ended"),
    ]
    joined_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    outcome: TicketClaimedBody | TicketRefusedBody | None


def ticket_body(ticket: domain.Ticket, *, shows_code: bool, problem: Any = None) -> TicketBody:
    """The body of a ticket, to be encoded.

    Args:
        ticket: the ticket.
        shows_code: whether the reader may see the code of its claim.
        problem: the body of the problem with which it was refused; None unless it was.
    """
    outcome: Any = None
    if ticket.claim is not None:
        outcome = {"claim": listed_claim_body(ticket.claim, shows_code=shows_code)}
    elif problem is not None:
        outcome = {"problem": problem}
    # Not a `TicketBody`: it is made for each claim that waits, and encoded in a third of the time.
    body: Any = {
        "id": ticket.id,
        "coupon_name": ticket.coupon_name,
        "user_id": ticket.user_id,
        "state": ticket.state,
        "position": ticket.position,
        "ahead": ticket.ahead,
        "eta_seconds": None if ticket.eta_seconds is None else round(ticket.eta_seconds, 1),
        "stopped": ticket.stopped,
        "joined_at": ticket.joined_at,
        "started_at": ticket.started_at,
        "ended_at": ticket.ended_at,
        "outcome": outcome,
    }
    return cast("TicketBody", body)
