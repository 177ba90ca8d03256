"""Every route of the API. Paths are matched, and listed in the OpenAPI document, in this order."""

from claimsvc.http.framework.routing import Route
from claimsvc.http.resources.audit import routes as audit
from claimsvc.http.resources.claims import redemptions, transitions
from claimsvc.http.resources.claims import routes as claims
from claimsvc.http.resources.codes import routes as codes
from claimsvc.http.resources.console import routes as console
from claimsvc.http.resources.coupons import reading
from claimsvc.http.resources.coupons import routes as coupons
from claimsvc.http.resources.eligibility import routes as eligibility
from claimsvc.http.resources.exports import routes as exports
from claimsvc.http.resources.locks import routes as locks
from claimsvc.http.resources.operations import routes as operations
from claimsvc.http.resources.queues import draw
from claimsvc.http.resources.queues import routes as queues
from claimsvc.http.resources.tickets import page
from claimsvc.http.resources.tickets import routes as tickets
from claimsvc.http.resources.users import claims as users_claims
from claimsvc.http.resources.users import routes as users

ROUTES: tuple[Route, ...] = (
    *claims.ROUTES,
    *reading.ROUTES,
    *coupons.ROUTES,
    *transitions.ROUTES,
    *redemptions.ROUTES,
    *tickets.ROUTES,
    *page.ROUTES,
    *draw.ROUTES,
    *codes.ROUTES,
    *eligibility.ROUTES,
    *locks.ROUTES,
    *queues.ROUTES,
    *audit.ROUTES,
    *exports.ROUTES,
    *users_claims.ROUTES,
    *users.ROUTES,
    *operations.ROUTES,
    *console.ROUTES,
)
_ON_BOTH = {"/", "/livez", "/health", "/healthcheck", "/readyz"}
PUBLIC_ROUTES = tuple(route for route in ROUTES if not route.for_operators)
"""Those of the public port, if operators have a port of their own."""
OPERATORS_ROUTES = tuple(route for route in ROUTES if route.for_operators or route.path in _ON_BOTH)
"""Those of the port for operators. Probes, and what runs there, are answered on both."""
