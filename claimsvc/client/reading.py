"""Parses answers from JSON. A member that is missing or has the wrong type raises a ValueError that names it.

Unknown members are kept, so that this client works with newer versions of the service.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeVar

from claimsvc.client.errors import Problem
from claimsvc.client.outcomes import Claim, Coupon, SeenTicket

_Kind = TypeVar("_Kind")


class Members:
    """The members of a JSON object. Reading a member removes it from `rest`."""

    def __init__(self, document: object) -> None:
        if not isinstance(document, dict):
            raise ValueError("it is not a JSON object")
        self.rest: dict[str, Any] = dict(document)

    def take(self, name: str, kind: type[_Kind]) -> _Kind:
        """Read a required member."""
        value = self.maybe(name, kind)
        if value is None:
            raise ValueError(f"`{name}` is missing")
        return value

    def maybe(self, name: str, kind: type[_Kind]) -> _Kind | None:
        """Read a member that may be missing or null."""
        value = self.rest.pop(name, None)
        # In Python, True is an int; in JSON it is not a number.
        if value is not None and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
            raise ValueError(f"`{name}` is not of type {kind.__name__}")
        return value

    def maybe_number(self, name: str) -> float | None:
        """Read a number that may be missing or null."""
        kind = int if isinstance(self.rest.get(name), int) else float
        value = self.maybe(name, kind)
        return None if value is None else float(value)

    def time(self, name: str) -> datetime:
        """Read a required time."""
        return _time(name, self.take(name, str))

    def maybe_time(self, name: str) -> datetime | None:
        """Read a time that may be missing or null."""
        text = self.maybe(name, str)
        return None if text is None else _time(name, text)


def _time(name: str, text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"`{name}` is not a date-time") from None
    if moment.tzinfo is None:
        raise ValueError(f"`{name}` has no offset from UTC")
    return moment


def claim_of(document: object) -> Claim:
    """Parse a claim."""
    members = Members(document)
    return Claim(
        members.take("id", str),
        members.take("coupon_name", str),
        members.take("user_id", str),
        members.take("state", str),
        members.time("claimed_at"),
        members.maybe_time("expires_at"),
        members.maybe_time("ended_at"),
        members.maybe("code", str),
        members.rest,
    )


def coupon_of(document: object) -> Coupon:
    """Parse a coupon, with or without its claimants."""
    members = Members(document)
    return Coupon(
        name=members.take("name", str),
        amount=members.take("amount", int),
        remaining_amount=members.take("remaining_amount", int),
        strategy=members.take("strategy", str),
        created_at=members.time("created_at"),
        claimed_by=tuple(members.maybe("claimed_by", list) or ()),
        starts_at=members.maybe_time("starts_at"),
        ends_at=members.maybe_time("ends_at"),
        paused=members.maybe("paused", bool) or False,
        archived_at=members.maybe_time("archived_at"),
        per_user_limit=members.maybe("per_user_limit", int) or 1,
        claims_per_user=members.maybe("claims_per_user", int),
        type=members.maybe("type", str),
        benefit=members.maybe("benefit", dict),
        metadata=members.maybe("metadata", dict) or {},
        queue=members.maybe("queue", dict),
        waiting_list=members.maybe("waiting_list", dict),
        more=members.rest,
    )


def ticket_of(document: object) -> tuple[SeenTicket, Mapping[str, Any] | None]:
    """Parse a ticket, and its member `outcome`."""
    members = Members(document)
    outcome: Mapping[str, Any] | None = members.maybe("outcome", dict)
    ticket = SeenTicket(
        id=members.take("id", str),
        coupon_name=members.take("coupon_name", str),
        user_id=members.take("user_id", str),
        state=members.take("state", str),
        joined_at=members.time("joined_at"),
        position=members.maybe("position", int),
        ahead=members.maybe("ahead", int),
        eta_seconds=members.maybe_number("eta_seconds"),
        stopped=members.maybe("stopped", str),
        started_at=members.maybe_time("started_at"),
        ended_at=members.maybe_time("ended_at"),
        more=members.rest,
    )
    return ticket, outcome


def page_of(document: object) -> tuple[list[Claim], str | None]:
    """Parse a page of claims: the claims, and the cursor of the next page or None."""
    members = Members(document)
    return [claim_of(item) for item in members.take("items", list)], members.maybe("next_cursor", str)


def problem_of(status: int, document: object) -> Problem | None:
    """Parse a problem document; None if it is not one of the service."""
    try:
        members = Members(document)
        kind = members.take("type", str)
        title, detail = members.take("title", str), members.take("detail", str)
        request_id = members.maybe("request_id", str) or ""  # a load balancer's own has none
    except ValueError:
        return None
    complete: Mapping[str, Any] = Members(document).rest
    return Problem(kind.rpartition("/")[2], status, title, detail, request_id, complete)


def document_of(body: bytes) -> object:
    """Parse a body as JSON; None if it is not JSON."""
    try:
        document: object = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return document
