"""The route that publishes how the order of a queue was drawn."""

from dataclasses import replace
from typing import Annotated

from aiohttp import web
from pydantic import Field

from claimsvc import domain
from claimsvc.domain.problems import UNAVAILABLE
from claimsvc.http.framework import parameters
from claimsvc.http.framework.parameters import DEFAULT_PAGE, Limit
from claimsvc.http.framework.refusals import refused
from claimsvc.http.framework.routing import NEXT, Route, Success, ok, with_next_link
from claimsvc.http.framework.services import SERVICES
from claimsvc.http.server.observers import REQUEST_ID
from claimsvc.http.server.response import Reply
from claimsvc.representations.draws import DrawBody, draw_body
from claimsvc.representations.fields import Request


class DrawQuery(Request):
    """The query of a draw."""

    limit: Limit = DEFAULT_PAGE
    cursor: Annotated[
        str, Field(pattern=r"^[0-9]{1,7}$|^$", description="`next_cursor` of the previous page", examples=["100"])
    ] = ""


async def get_draw(request: web.Request, path: parameters.CouponPath, query: DrawQuery) -> Reply:
    """Read how the order of a queue with `order: draw` was drawn, and recompute it.

    The digest of the seed is published as soon as the coupon has the queue; the seed and the entries are published once
    the coupon has started. Entries are shown while their tickets are kept.
    """
    after = int(query.cursor or 0)
    found = await request.app[SERVICES].tickets.draw(path.name, after=after, limit=query.limit + 1)
    if isinstance(found, domain.NoDraw):
        return refused(found, request[REQUEST_ID])
    cursor = str(after + query.limit) if len(found.entries) > query.limit else None
    page = replace(found, entries=found.entries[: query.limit])
    return with_next_link(request, ok(draw_body(page, cursor)), cursor)


ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        "/api/coupons/{name}/draw",
        get_draw,
        tag="tickets",
        summary="Read how the order of a queue was drawn",
        success=Success(200, "A page of the draw.", DrawBody, headers=NEXT),
        refusals=(domain.NoDraw,),
        problems=(UNAVAILABLE,),
    ),
)
