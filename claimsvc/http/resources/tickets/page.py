"""The page of a ticket, for the person who waits: `/queue/{ticket}`.

The id of the ticket is the capability: who knows the address may look, without a token. So the page shows neither user
nor code. Without JavaScript it refreshes itself; with it, the place is told by server-sent events.
"""

import re
from collections.abc import AsyncIterator
from dataclasses import asdict
from html import escape

from aiohttp import hdrs, web

from claimsvc.application import tickets as ticket_cases
from claimsvc.domain import Ticket, TicketState, UnknownTicket
from claimsvc.errors import TransientError
from claimsvc.http.framework.routing import Route, Success
from claimsvc.http.framework.services import SERVICES
from claimsvc.http.framework.small_pages import small_page
from claimsvc.http.resources.tickets.routes import stream_of
from claimsvc.http.resources.tickets.watching import GREETING, WATCHERS, following, frame
from claimsvc.http.resources.tickets.words import words_of
from claimsvc.http.server.wire import dump

_UUID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_SOONEST_SECONDS, _LATEST_SECONDS = 3, 30
# Only text is set, so that what is told is never read as HTML. What has not changed is left, so that it is not read out
# again. A stream that is refused is tried again with the whole page.
_SCRIPT = """
const now = document.getElementById("now");
const events = new EventSource(location.pathname.replace(/\\/$/, "") + "/events");
events.addEventListener("place", (event) => {
  const told = JSON.parse(event.data);
  document.title = told.title;
  if (told.lines.join() !== Array.from(now.children, (line) => line.textContent).join()) {
    now.replaceChildren(...told.lines.map((text, index) => {
      const line = document.createElement(index ? "p" : "h1");
      line.textContent = text;
      return line;
    }));
  }
  if (told.ended) events.close();
});
events.addEventListener("error", () => {
  if (events.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 5000);
});
"""


async def queue_page(request: web.Request) -> web.Response:
    """The page of a ticket."""
    try:
        found = await _ticket_of(request)
    except TransientError:
        said = "      <h1>We cannot look it up now</h1>\n      <p>You keep your place. Try again in a few seconds.</p>"
        page = small_page("We cannot look it up now", said, status=503, refresh_seconds=5, is_private=True)
        page.headers[hdrs.RETRY_AFTER] = "5"
        return page
    if not isinstance(found, Ticket):
        said = "      <h1>This place is not known</h1>\n      <p>The address is wrong, or it ended over a day ago.</p>"
        return small_page("This place is not known", said, status=404, is_private=True)
    words = words_of(found)
    heading, *lines = (escape(line) for line in words.lines)
    told = "".join(f"<p>{line}</p>" for line in lines)
    body = (
        f'      <p class="status">Queue for {escape(found.coupon_name)}</p>\n'
        f'      <div id="now" role="status" aria-live="polite" aria-atomic="true"><h1>{heading}</h1>{told}</div>'
    )
    if words.ended:
        return small_page(words.title, body, is_private=True)
    body += '\n      <p class="back">This page keeps itself up to date.</p>'
    seconds = _refresh_seconds(found)
    return small_page(words.title, body, refresh_seconds=seconds, script=_SCRIPT, is_private=True)


async def queue_events(request: web.Request) -> web.StreamResponse:
    """What the page of a ticket tells, as server-sent events."""
    found = await _ticket_of(request)
    if not isinstance(found, Ticket):
        raise web.HTTPNotFound

    async def events(ticket: Ticket, seen: str) -> AsyncIterator[bytes]:
        yield GREETING
        watchers, progress = request.app[WATCHERS], request.app[SERVICES].progress
        async for each in following(watchers, progress, ticket, seen, request.transport):
            yield frame("place", each, b"" if each is None else dump(asdict(words_of(each))))

    return stream_of(request, found, events(found, request.headers.get("Last-Event-ID", "")))


async def _ticket_of(request: web.Request) -> Ticket | UnknownTicket:
    ticket_id = request.match_info["id"]
    if not _UUID.fullmatch(ticket_id):
        return UnknownTicket()
    return await ticket_cases.get_by_id_alone(request.app[SERVICES].tickets, ticket_id)


def _refresh_seconds(ticket: Ticket) -> int:
    """After how long the page is read again: more often as the turn comes near."""
    if ticket.state is not TicketState.WAITING:
        return _SOONEST_SECONDS
    seconds = _LATEST_SECONDS if ticket.eta_seconds is None else ticket.eta_seconds / 4
    return round(min(max(seconds, _SOONEST_SECONDS), _LATEST_SECONDS))


ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        "/queue/{id}",
        queue_page,
        tag="tickets",
        summary="The page of a ticket",
        success=Success(200, "A page.", content_types=("text/html",)),
        documented=False,
    ),
    Route(
        "GET",
        "/queue/{id}/events",
        queue_events,
        tag="tickets",
        summary="The events of the page",
        success=Success(200, "Server-sent events.", content_types=("text/event-stream",)),
        documented=False,
    ),
)
