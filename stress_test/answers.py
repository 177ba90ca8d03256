"""Parses what the service answered."""

import json
from dataclasses import dataclass
from datetime import datetime

import aiohttp

from stress_test.history import (
    ALREADY_CLAIMED,
    CLAIMED,
    CLAIMED_UNREADABLY,
    NO_ANSWER,
    QUEUED,
    QUEUED_UNREADABLY,
    ClaimSeen,
    TicketSeen,
)


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of one claim request."""

    outcome: str
    claim: ClaimSeen | None = None
    ticket: TicketSeen | None = None


def moment_of(text: object) -> datetime | None:
    """Parse a time; None if it is not one, or has no offset, because such times cannot be compared with others."""
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return moment if moment.tzinfo else None


def claim_seen(payload: object) -> ClaimSeen | None:
    """Parse a claim from a JSON value; None if it is not one."""
    if not isinstance(payload, dict):
        return None
    texts = [payload.get(key) for key in ("id", "coupon_name", "user_id", "claimed_at")]
    if not all(isinstance(text, str) for text in texts):
        return None
    claim_id, coupon_name, user_id, claimed_at = map(str, texts)
    moment = moment_of(claimed_at)
    return ClaimSeen(claim_id, coupon_name, user_id, moment) if moment else None


def ticket_seen(payload: object) -> TicketSeen | None:
    """Parse a ticket, of its own page or of a list, from a JSON value; None if it is not one."""
    if not isinstance(payload, dict):
        return None
    texts = [payload.get(key) for key in ("id", "coupon_name", "user_id", "state")]
    joined_at, position = moment_of(payload.get("joined_at")), payload.get("position")
    if not all(isinstance(text, str) for text in texts) or joined_at is None:
        return None
    ticket_id, coupon_name, user_id, state = map(str, texts)
    outcome = payload.get("outcome")
    outcome = outcome if isinstance(outcome, dict) else {}
    problem = outcome.get("problem")
    return TicketSeen(
        ticket_id,
        coupon_name,
        user_id,
        state,
        position if isinstance(position, int) else None,
        joined_at,
        moment_of(payload.get("started_at")),
        moment_of(payload.get("ended_at")),
        claim_seen(outcome.get("claim")),
        str(problem.get("type")).rstrip("/").rpartition("/")[2] if isinstance(problem, dict) else None,
    )


def answer_of(status: int, body: bytes) -> Answer:
    """Classify a response.

    Args:
        status: the HTTP status.
        body: the complete body.
    """
    try:
        payload = json.loads(body)
    except ValueError:
        payload = None
    if status == 201:
        claim = claim_seen(payload)
        return Answer(CLAIMED, claim) if claim else Answer(CLAIMED_UNREADABLY)
    if status == 202:
        ticket = ticket_seen(payload)
        return Answer(QUEUED, ticket=ticket) if ticket else Answer(QUEUED_UNREADABLY)
    if isinstance(payload, dict) and isinstance(payload.get("type"), str):
        problem = payload["type"].rstrip("/").rpartition("/")[2]
        outcome = f"{status} {problem}"
        return Answer(outcome, claim_seen(payload.get("claim")) if outcome == ALREADY_CLAIMED else None)
    return Answer(str(status))


def no_answer(failure: Exception) -> Answer:
    """Classify an error that prevented a response."""
    match failure:
        case TimeoutError():
            kind = "timeout"
        case aiohttp.ClientConnectorError():
            kind = "not-connected"
        case aiohttp.ServerDisconnectedError():
            kind = "disconnected"
        case OSError():
            kind = "reset"
        case _:
            kind = "garbled"
    return Answer(NO_ANSWER + kind)
