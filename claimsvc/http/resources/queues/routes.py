"""The routes of operators for queues, their tickets and dead letters; all need a key."""

from collections.abc import Sequence
from typing import Any

from aiohttp import web

from claimsvc import domain
from claimsvc.application import queues
from claimsvc.domain.problems import UNAVAILABLE
from claimsvc.http.framework import parameters
from claimsvc.http.framework.auth import only
from claimsvc.http.framework.idempotency import once_only, replayed
from claimsvc.http.framework.reasons import NO_REASON, OptionalReason, ReasonQuery, reason_of
from claimsvc.http.framework.refusals import refused
from claimsvc.http.framework.routing import NEXT, Route, Success, ok, with_next_link
from claimsvc.http.framework.services import CALLER, SERVICES
from claimsvc.http.resources.queues.schemas import (
    DeadLetterPath,
    QueueReason,
    TicketPages,
    TicketsQuery,
    cursor_of,
)
from claimsvc.http.server.observers import REQUEST_ID
from claimsvc.http.server.response import Reply
from claimsvc.representations import queue_status


async def list_queues(request: web.Request) -> Reply:
    """List the queues in which tickets wait, are started or are dead letters, ordered by coupon."""
    return ok(queue_status.queues_body(await queues.statuses(request.app[SERVICES].tickets, request[CALLER])))


async def list_tickets(request: web.Request, path: parameters.CouponPath, query: TicketsQuery) -> Reply:
    """List the tickets of a coupon in the order in which they joined its queue. Ended tickets are listed for a day."""
    services = request.app[SERVICES]
    found = await queues.of_coupon(
        services.tickets,
        services.coupons,
        request[CALLER],
        path.name,
        states=query.states(),
        after=query.after(),
        limit=query.limit + 1,
    )
    if isinstance(found, domain.UnknownCoupon):
        return refused(found, request[REQUEST_ID])
    page, cursor = _page(found, query.limit)
    body = queue_status.TicketPageBody([queue_status.listed_ticket_body(each) for each in page], cursor)
    return with_next_link(request, ok(body), cursor)


async def pause_queue(request: web.Request, path: parameters.CouponPath, body: QueueReason) -> Reply:
    """Stop starting the tickets of a coupon. Claims that have begun go on, and users can still join the queue; tickets
    that wait longer than `max_wait_seconds` expire."""
    return await _pause(request, path, body, paused=True)


async def resume_queue(request: web.Request, path: parameters.CouponPath, body: QueueReason) -> Reply:
    """Start the tickets of a coupon again."""
    return await _pause(request, path, body, paused=False)


async def _pause(request: web.Request, path: parameters.CouponPath, body: QueueReason, *, paused: bool) -> Reply:
    services, caller, request_id = request.app[SERVICES], request[CALLER], request[REQUEST_ID]

    async def pause(key: domain.IdempotencyKey | None) -> object:
        return await queues.pause(
            services.tickets, caller, path.name, body.reason, paused=paused, key=key, request_id=request_id
        )

    return _reply(await once_only(request, body, pause), request_id)


async def list_dead_letters(request: web.Request, query: TicketPages) -> Reply:
    """List what the service has failed to do too often, oldest first."""
    found = await queues.dead_letters(
        request.app[SERVICES].tickets, request[CALLER], after=query.after(), limit=query.limit + 1
    )
    page, cursor = _page(found, query.limit)
    body = queue_status.DeadLetterPageBody([queue_status.dead_letter_body(each) for each in page], cursor)
    return with_next_link(request, ok(body), cursor)


async def requeue_dead_letter(request: web.Request, path: DeadLetterPath, body: QueueReason) -> Reply:
    """Try a dead letter again at once."""
    services, caller, request_id = request.app[SERVICES], request[CALLER], request[REQUEST_ID]

    async def requeue(key: domain.IdempotencyKey | None) -> object:
        return await queues.requeue(services.tickets, caller, path.id, body.reason, key=key, request_id=request_id)

    return _reply(await once_only(request, body, requeue), request_id)


async def discard_dead_letter(
    request: web.Request, path: DeadLetterPath, query: ReasonQuery, body: OptionalReason = NO_REASON
) -> Reply:
    """Give a dead letter up for good. The ticket has left the queue, and its user can claim again."""
    services, caller, request_id = request.app[SERVICES], request[CALLER], request[REQUEST_ID]
    reason = reason_of(query, body)
    return _reply(await queues.discard(services.tickets, caller, path.id, reason, request_id=request_id), request_id)


def _page(found: Sequence[domain.Ticket], limit: int) -> tuple[Sequence[domain.Ticket], str | None]:
    page = found[:limit]
    return page, cursor_of(page[-1]) if len(found) > limit else None


def _reply(outcome: Any, request_id: str) -> Reply:
    match outcome:
        case domain.QueueChanged(status):
            return ok(queue_status.status_body(status))
        case domain.TicketRequeued(ticket) | domain.TicketDiscarded(ticket):
            return ok(queue_status.listed_ticket_body(ticket))
        case domain.Replayed(answer, first_request_id):
            return replayed(_reply(answer, first_request_id))
        case _:
            return refused(outcome, request_id)


_READ, _WRITE = only(domain.Scope.TICKETS_READ), only(domain.Scope.TICKETS_WRITE)

ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        "/api/queues",
        list_queues,
        tag="operations",
        summary="List queues",
        success=Success(200, "The queues that are in use.", queue_status.QueuesBody),
        problems=(UNAVAILABLE,),
        access=_READ,
    ),
    Route(
        "GET",
        "/api/coupons/{name}/tickets",
        list_tickets,
        tag="operations",
        summary="List the tickets of a coupon",
        success=Success(200, "A page of tickets.", queue_status.TicketPageBody, headers=NEXT),
        refusals=(domain.UnknownCoupon,),
        problems=(UNAVAILABLE,),
        access=_READ,
    ),
    Route(
        "POST",
        "/api/coupons/{name}/queue/pause",
        pause_queue,
        tag="operations",
        summary="Pause the queue of a coupon",
        success=Success(200, "The queue is paused.", queue_status.QueueStatusBody),
        refusals=(domain.UnknownCoupon,),
        problems=(UNAVAILABLE,),
        access=_WRITE,
        keyed=True,
    ),
    Route(
        "POST",
        "/api/coupons/{name}/queue/resume",
        resume_queue,
        tag="operations",
        summary="Resume the queue of a coupon",
        success=Success(200, "The queue is not paused.", queue_status.QueueStatusBody),
        refusals=(domain.UnknownCoupon,),
        problems=(UNAVAILABLE,),
        access=_WRITE,
        keyed=True,
    ),
    Route(
        "GET",
        "/api/dead-letters",
        list_dead_letters,
        tag="operations",
        summary="List dead letters",
        success=Success(200, "A page of dead letters.", queue_status.DeadLetterPageBody, headers=NEXT),
        problems=(UNAVAILABLE,),
        access=_READ,
    ),
    Route(
        "POST",
        "/api/dead-letters/{id}/requeue",
        requeue_dead_letter,
        tag="operations",
        summary="Try a dead letter again",
        success=Success(200, "It is tried again.", queue_status.ListedTicketBody),
        refusals=(domain.UnknownTicket, domain.TicketNotDead, domain.TicketReplaced),
        problems=(UNAVAILABLE,),
        access=_WRITE,
        keyed=True,
    ),
    Route(
        "DELETE",
        "/api/dead-letters/{id}",
        discard_dead_letter,
        tag="operations",
        summary="Discard a dead letter",
        success=Success(200, "It is given up.", queue_status.ListedTicketBody),
        refusals=(domain.UnknownTicket, domain.TicketNotDead),
        problems=(UNAVAILABLE,),
        access=_WRITE,
    ),
)
