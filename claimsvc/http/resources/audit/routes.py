"""Who did what, over HTTP; it asks for a key."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aiohttp import web

from claimsvc import domain
from claimsvc.application import audit
from claimsvc.domain.problems import UNAVAILABLE
from claimsvc.http.framework import parameters
from claimsvc.http.framework.auth import only
from claimsvc.http.framework.routing import NEXT, Route, Success, ok, with_next
from claimsvc.http.framework.services import CALLER, SERVICES
from claimsvc.http.server.response import Reply


@dataclass(frozen=True, slots=True)
class AuditEntryBody:
    """Who did what to which thing, and why. `actor` is a key, a user of the system, a job, or the claimant."""

    at: datetime
    actor: str
    action: str
    subject_type: str
    subject: str
    reason: str
    request_id: str | None
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class AuditPageBody:
    """Some of the entries, newest first. `next_cursor` is null on the last page."""

    items: list[AuditEntryBody]
    next_cursor: str | None


def entry_body(entry: domain.AuditEntry) -> AuditEntryBody:
    """An entry that was read, as it goes over the wire."""
    return AuditEntryBody(
        _position(entry).at,
        entry.actor,
        entry.action,
        entry.subject_type,
        entry.subject,
        entry.reason,
        entry.request_id,
        entry.details,
    )


def _position(entry: domain.AuditEntry) -> domain.AuditPosition:
    if entry.at is None or entry.id is None:
        raise ValueError("it was never written")
    return domain.AuditPosition(entry.at, entry.id)


async def list_audit(request: web.Request, query: parameters.AuditQuery) -> Reply:
    """One page of what was done, newest first.

    With a claim as the subject its making is told too. No entry names a user: the claim itself does.
    """
    found = await audit.entries(
        request.app[SERVICES].audit, request[CALLER], query.filter(), after=query.after(), limit=query.limit + 1
    )
    page = found[: query.limit]
    cursor = parameters.audit_cursor(_position(page[-1])) if len(found) > query.limit else None
    return with_next(request, ok(AuditPageBody([entry_body(entry) for entry in page], cursor)), cursor)


ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        "/api/audit",
        list_audit,
        tag="operations",
        summary="Who did what?",
        success=Success(200, "One page of the entries.", AuditPageBody, headers=NEXT),
        problems=(UNAVAILABLE,),
        access=only(domain.Scope.AUDIT_READ),
    ),
)
