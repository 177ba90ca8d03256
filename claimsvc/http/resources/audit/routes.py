"""The route that reads the audit; it needs a key."""

from dataclasses import dataclass

from aiohttp import web

from claimsvc import domain
from claimsvc.application import audit
from claimsvc.domain.problems import UNAVAILABLE
from claimsvc.http.framework import parameters
from claimsvc.http.framework.auth import only
from claimsvc.http.framework.routing import NEXT, Route, Success, ok, with_next_link
from claimsvc.http.framework.services import CALLER, SERVICES
from claimsvc.http.server.response import Reply
from claimsvc.representations.audit import AuditEntryBody, audit_position, entry_body


@dataclass(frozen=True, slots=True)
class AuditPageBody:
    """A page of entries, newest first. `next_cursor` is null on the last page."""

    items: list[AuditEntryBody]
    next_cursor: str | None


async def list_audit(request: web.Request, query: parameters.AuditQuery) -> Reply:
    """List audit entries, newest first.

    With a claim as the subject, the list includes the claim's creation. Entries never name users; look the claim up to
    learn its user.
    """
    found = await audit.entries(
        request.app[SERVICES].audit, request[CALLER], query.filter(), after=query.after(), limit=query.limit + 1
    )
    page = found[: query.limit]
    cursor = parameters.audit_cursor(audit_position(page[-1])) if len(found) > query.limit else None
    return with_next_link(request, ok(AuditPageBody([entry_body(entry) for entry in page], cursor)), cursor)


ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        "/api/audit",
        list_audit,
        tag="operations",
        summary="List audit entries",
        success=Success(200, "A page of entries.", AuditPageBody, headers=NEXT),
        problems=(UNAVAILABLE,),
        access=only(domain.Scope.AUDIT_READ),
    ),
)
