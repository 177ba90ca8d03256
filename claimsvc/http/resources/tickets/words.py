"""What a ticket's page says: the place, the estimate, and what comes next, in plain words.

Neither user nor code is told, because whoever has the address of the page can read it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from claimsvc.domain import ClaimState, QueueStop, Ticket, TicketState
from claimsvc.domain.outcomes import problem_of

_SECONDS = 60
_STOPS = {
    QueueStop.PAUSED: "The queue is paused for now. You keep your place.",
    QueueStop.NOT_STARTED: "The queue has not started yet. You keep your place.",
    QueueStop.SOLD_OUT: "All are taken for now. You keep your place: what comes back is given out in order.",
    QueueStop.UNAVAILABLE: "We have a problem at the moment. You keep your place, and it goes on by itself.",
}
_TO_BE_DRAWN = "The order is drawn by lot at the start. Whoever joins before that has the same chance."
_NEXT = "Stay on this page, or come back to it: you keep your place. When it is your turn, this page says so."
_ENDS = {
    TicketState.STARTED: (
        "It is your turn",
        "We are trying to get one for you. This takes a moment.",
    ),
    TicketState.CLAIMED: (
        "You have got one",
        "It is yours, and you need not wait any more. You find it where you joined the queue.",
    ),
    TicketState.EXPIRED: (
        "Your place has expired",
        "It was not your turn within the time that this queue allows. You can join it again.",
    ),
    TicketState.LEFT: (
        "You have left the queue",
        "Nothing was taken. You can join it again.",
    ),
    TicketState.DEAD: (
        "We could not finish this",
        "It was your turn, but we had a problem for too long. Somebody looks into it. Come back to this page later.",
    ),
}
_CLAIMS = {
    ClaimState.HELD: (
        "One is held for you",
        "Confirm it soon, where you joined the queue: then it is yours. Otherwise somebody else gets it.",
    ),
    ClaimState.EXPIRED: ("The one that was held for you has expired", "It was not confirmed in time."),
    ClaimState.CANCELLED: ("You have given yours back", "You need not wait any more."),
}


@dataclass(frozen=True, slots=True)
class Words:
    """What is told of a ticket now.

    Args:
        title: of the page.
        lines: the first is the heading.
        ended: whether there is nothing to wait for.
    """

    title: str
    lines: Sequence[str]
    ended: bool


def words_of(ticket: Ticket) -> Words:
    """What to tell of a ticket."""
    heading, *lines = _lines(ticket)
    return Words(f"{heading} - {ticket.coupon_name}", (heading, *lines), ticket.state.is_end)


def _lines(ticket: Ticket) -> Sequence[str]:
    if ticket.state is TicketState.REFUSED:
        reason = "" if ticket.refusal is None else f"The reason: {problem_of(ticket.refusal).title}."
        return "You have not got one", reason or "It could not be given to you."
    if ticket.claim is not None and ticket.claim.state in _CLAIMS:
        return _CLAIMS[ticket.claim.state]
    if ticket.state is not TicketState.WAITING:
        return _ENDS[ticket.state]
    if ticket.ahead is None:
        return "You are in the draw", _TO_BE_DRAWN, _NEXT
    ahead = ticket.ahead
    before = {0: "Nobody is before you.", 1: "One other is before you."}.get(ahead, f"{ahead:,} others are before you.")
    return f"You are number {ahead + 1:,} in the queue", f"{before} {_when(ticket)}".strip(), _NEXT


def _when(ticket: Ticket) -> str:
    if ticket.stopped is not None:
        return _STOPS[ticket.stopped]
    return "" if ticket.eta_seconds is None else f"It is your turn {_in_words(ticket.eta_seconds)}."


def _in_words(seconds: float) -> str:
    """A time to come. It is rounded up, because nobody minds to wait shorter."""
    if seconds <= 1:
        return "in a moment"
    whole = math.ceil(seconds) if seconds <= 10 else math.ceil(seconds / 5) * 5
    if whole < _SECONDS:
        return f"in about {whole} seconds"
    minutes = math.ceil(seconds / _SECONDS)
    if minutes < _SECONDS:
        return "in about a minute" if minutes == 1 else f"in about {minutes} minutes"
    hours = math.ceil(minutes / _SECONDS)
    return "in about an hour" if hours == 1 else f"in about {hours} hours"
