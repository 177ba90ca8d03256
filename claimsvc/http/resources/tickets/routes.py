"""The routes of tickets: claims that wait in a queue. `page` has the one for people."""

from collections.abc import AsyncIterator
from functools import partial

from aiohttp import hdrs, web

from claimsvc import domain
from claimsvc.application import tickets as ticket_cases
from claimsvc.domain import Caller, Scope, Ticket
from claimsvc.domain.problems import UNAVAILABLE
from claimsvc.errors import UnavailableError
from claimsvc.http.framework import parameters
from claimsvc.http.framework.auth import users_and
from claimsvc.http.framework.preferences import PREFERENCE_APPLIED, preferences_of
from claimsvc.http.framework.refusals import next_look, refused, shown_ticket
from claimsvc.http.framework.routing import Route, Success, ok
from claimsvc.http.framework.services import CALLER, SERVICES
from claimsvc.http.resources.tickets.watching import (
    EVENT_STREAM,
    GREETING,
    WATCHERS,
    TicketStream,
    event_id,
    following,
    frame,
)
from claimsvc.http.server import problems
from claimsvc.http.server.observers import REQUEST_ID
from claimsvc.http.server.response import Reply, Response
from claimsvc.http.server.wire import RESPONSE_HEADERS, dump
from claimsvc.ports.clients import CLIENT
from claimsvc.representations.tickets import TicketBody

LONGEST_WAIT_SECONDS = 10
_LAST_EVENT_ID = "Last-Event-ID"


async def get_ticket(request: web.Request, path: parameters.TicketPath) -> Reply:
    """Read a ticket.

    With `Prefer: wait=5` the response comes when the state or the position has changed, or after 5 seconds; 10 at most.
    Codes are shown as far as the caller may see them.
    """
    caller, services, watchers = request[CALLER], request.app[SERVICES], request.app[WATCHERS]
    found = await ticket_cases.get(services.tickets, caller, path.id)
    seconds, has_waited = min(preferences_of(request).wait_seconds or 0, LONGEST_WAIT_SECONDS), False
    if isinstance(found, Ticket) and not found.state.is_end and seconds:
        # Without room, it is answered at once: the client asks again after `Retry-After`.
        with watchers.place(CLIENT.get()) as has_waited:
            if has_waited:
                found = await watchers.changed(services.progress, found, seconds, request.transport)
    if not isinstance(found, Ticket):
        return refused(found, request[REQUEST_ID])
    reply = next_look(ok(_shown(caller, found, request[REQUEST_ID])), found)
    if has_waited:
        reply.headers[PREFERENCE_APPLIED] = f"wait={seconds}"
    return reply


async def watch_ticket(request: web.Request, path: parameters.TicketPath) -> web.StreamResponse:
    """Watch a ticket by server-sent events, until it has ended.

    Each event `ticket` has the ticket as its data, and an id that changes with the state, the position and `stopped`.
    With the id of the last event in `Last-Event-ID`, only what has changed since is sent; after the last of all events,
    the response is 204, so that browsers do not come back.
    """
    caller, request_id, services = request[CALLER], request[REQUEST_ID], request.app[SERVICES]
    found = await ticket_cases.get(services.tickets, caller, path.id)
    if not isinstance(found, Ticket):
        return Response(refused(found, request_id))
    shown = partial(_shown, caller, request_id=request_id)

    async def events(ticket: Ticket, seen: str) -> AsyncIterator[bytes]:
        yield GREETING
        async for each in following(request.app[WATCHERS], services.progress, ticket, seen, request.transport):
            yield frame("ticket", each, b"" if each is None else dump(shown(each)))

    return stream_of(request, found, events(found, request.headers.get(_LAST_EVENT_ID, "")))


def stream_of(request: web.Request, ticket: Ticket, events: AsyncIterator[bytes]) -> web.StreamResponse:
    """The response with a ticket's events, or what is answered instead.

    Args:
        request: the request.
        ticket: as it is now.
        events: what the stream consists of.

    Raises:
        RefusedError: too many watch already.
        UnavailableError: the instance is stopping.
    """
    if ticket.state.is_end and request.headers.get(_LAST_EVENT_ID) == event_id(ticket):
        return web.Response(status=204, headers=RESPONSE_HEADERS)
    if request.method == hdrs.METH_HEAD:
        return web.StreamResponse(headers=EVENT_STREAM)
    watchers, address = request.app[WATCHERS], CLIENT.get()
    if watchers.is_stopping:
        raise UnavailableError("this instance is stopping", dependency="claimsvc")
    if watchers.is_full_for(address):
        raise problems.RefusedError(
            problems.TOO_MANY_VIEWERS,
            f"This instance lets {watchers.most} clients watch tickets, {watchers.most_of_address} of one address; "
            "read the ticket instead, or come back later.",
        )
    return TicketStream(watchers, address, events)


async def leave_queue(request: web.Request, path: parameters.TicketPath) -> web.StreamResponse:
    """Leave the queue. The ticket ends as `left`; repeating this changes nothing."""
    services = request.app[SERVICES]
    left = await ticket_cases.leave(services.tickets, request[CALLER], path.id, services.ticket_observer)
    if isinstance(left, domain.LeftQueue):
        return web.Response(status=204, headers=RESPONSE_HEADERS)
    return Response(refused(left, request[REQUEST_ID]))


def _shown(caller: Caller, ticket: Ticket, request_id: str) -> TicketBody:
    return shown_ticket(ticket, request_id, shows_code=ticket_cases.shows_code(caller, ticket))


_NEXT_LOOK = {
    "Retry-After": "when it is worth to read it again, in whole seconds; absent once it has ended",
    "Preference-Applied": "`wait=N`, if the response may have waited for so many seconds",
}

ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        "/api/tickets/{id}",
        get_ticket,
        tag="tickets",
        summary="Read a ticket",
        success=Success(200, "The ticket; its outcome, once it has one.", TicketBody, headers=_NEXT_LOOK),
        refusals=(domain.UnknownTicket,),
        problems=(UNAVAILABLE,),
        access=users_and(Scope.TICKETS_READ),
        prefer="`wait=N`: answer when the state or the position changes, or after N seconds, at most 10",
    ),
    Route(
        "GET",
        "/api/tickets/{id}/events",
        watch_ticket,
        tag="tickets",
        summary="Watch a ticket",
        success=Success(200, "Server-sent events.", content_types=("text/event-stream",)),
        other_successes=(Success(204, "The client has seen the last event.", content_types=()),),
        refusals=(domain.UnknownTicket,),
        problems=(UNAVAILABLE, problems.TOO_MANY_VIEWERS),
        access=users_and(Scope.TICKETS_READ),
    ),
    Route(
        "DELETE",
        "/api/tickets/{id}",
        leave_queue,
        tag="tickets",
        summary="Leave the queue",
        success=Success(204, "The ticket has left its queue.", content_types=()),
        refusals=(domain.UnknownTicket, domain.TicketStarted),
        problems=(UNAVAILABLE,),
        access=users_and(Scope.TICKETS_WRITE),
    ),
)
