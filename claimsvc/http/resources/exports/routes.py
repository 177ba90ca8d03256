"""The route that exports claims. It streams the response, so memory is bounded; a failure aborts the connection."""

from collections.abc import AsyncIterator

from aiohttp import hdrs, web

from claimsvc import domain
from claimsvc.application import claims
from claimsvc.domain.problems import UNAVAILABLE
from claimsvc.http.framework import parameters
from claimsvc.http.framework.auth import only
from claimsvc.http.framework.refusals import refused
from claimsvc.http.framework.routing import Route, Success
from claimsvc.http.framework.services import CALLER, SERVICES
from claimsvc.http.server.observers import REQUEST_ID
from claimsvc.http.server.response import Reply
from claimsvc.http.server.wire import RESPONSE_HEADERS, X_REQUEST_ID

_CSV = "text/csv"


async def export_claims(request: web.Request, path: parameters.CouponPath) -> web.StreamResponse | Reply:
    """Export all claims of a coupon, also ended ones, oldest first, as CSV with a header line.

    If the response breaks off before its last chunk, the export failed and is incomplete. A cell that a spreadsheet
    could take for a formula, that has a `;`, or that begins with `'`, is prefixed with `'`, and has `%3B` for `;` and
    `%25` for `%`. Lists of users that are loaded as CSV are read in the same form.
    """
    parts = await claims.export(request.app[SERVICES].exports, request[CALLER], path.name)
    if isinstance(parts, domain.UnknownCoupon):
        return refused(parts, request[REQUEST_ID])
    response = web.StreamResponse(
        headers={
            **RESPONSE_HEADERS,
            hdrs.CONTENT_TYPE: f"{_CSV}; charset=utf-8; header=present",
            hdrs.CONTENT_DISPOSITION: f'attachment; filename="{path.name}-claims.csv"',
            X_REQUEST_ID: request[REQUEST_ID],
        }
    )
    if request.method != hdrs.METH_HEAD:
        await _send(request, response, parts)
    return response


async def _send(request: web.Request, response: web.StreamResponse, parts: AsyncIterator[bytes]) -> None:
    await response.prepare(request)
    try:
        async for part in parts:
            await response.write(part)
    except ConnectionError:
        return  # the client has disconnected, or has not read for too long
    except BaseException:
        # Abort, so that the response does not look complete. The exception is logged only.
        if request.transport is not None:
            request.transport.abort()
        raise


ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        "/api/coupons/{name}/claims/export",
        export_claims,
        tag="coupons",
        summary="Export a coupon's claims as CSV",
        success=Success(200, "The claims, streamed.", content_types=(_CSV,)),
        refusals=(domain.UnknownCoupon,),
        problems=(UNAVAILABLE,),
        access=only(domain.Scope.CLAIMS_READ),
    ),
)
