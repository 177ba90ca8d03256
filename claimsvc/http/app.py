"""The web application and the server that runs it."""

from collections.abc import Callable
from functools import cache, partial

from aiohttp import web

from claimsvc.application.readiness import Readiness
from claimsvc.http.framework import openapi
from claimsvc.http.framework.idempotency import IN_FLIGHT, InFlight
from claimsvc.http.framework.routing import install
from claimsvc.http.framework.services import SERVICES, Services
from claimsvc.http.framework.stored_answers import STORED_ANSWERS, StoredAnswers
from claimsvc.http.resources.console.routes import CONSOLE, DEVELOPMENT_ROUTES, Console
from claimsvc.http.resources.operations import routes as operations
from claimsvc.http.resources.operations.docs import DOCS, Docs
from claimsvc.http.resources.operations.metrics_page import MetricsPage
from claimsvc.http.resources.tickets.watching import WATCHERS, Watchers
from claimsvc.http.routes import OPERATORS_ROUTES, PUBLIC_ROUTES, ROUTES
from claimsvc.http.runner import KEEPALIVE_SECONDS, UNFINISHED_REQUESTS_BYTES, Runner
from claimsvc.http.server.unfinished import UnfinishedRequests
from claimsvc.http.server.wire import MAX_BODY_BYTES


def create_app(services: Services, *, operators_apart: bool = False) -> web.Application:
    """Build the application; `create_runner` serves it.

    Args:
        services: what the routes use. The application does not close them.
        operators_apart: leave out the pages for operators, which `create_operators_app` has.
    """
    routes = PUBLIC_ROUTES if operators_apart else ROUTES
    app = _application(services, services.readiness, shows_operators_pages=not operators_apart)
    # Built on the first request for it: building takes 0.1 s, which a start need not wait for.
    document: Callable[[], bytes] = cache(partial(openapi.document, routes, with_tokens=services.tokens is not None))
    app[operations.OPENAPI_DOCUMENT] = document
    install(app, routes)
    if services.stress is not None and not operators_apart:
        install(app, DEVELOPMENT_ROUTES)
    if services.cors is not None:
        app.on_response_prepare.append(services.cors.prepare)
    return app


def create_operators_app(app: web.Application) -> web.Application:
    """Build the application of the port for operators.

    Args:
        app: the public one, from `create_app` with `operators_apart`.
    """
    services = app[SERVICES]
    ours = _application(services, app[operations.READINESS], shows_operators_pages=True, shows_api=False)
    install(ours, OPERATORS_ROUTES)
    return ours


def _application(
    services: Services, readiness: Readiness, *, shows_operators_pages: bool, shows_api: bool = True
) -> web.Application:
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app[SERVICES] = services
    app[IN_FLIGHT] = InFlight()
    app[STORED_ANSWERS] = StoredAnswers()
    app[DOCS] = Docs()
    app[CONSOLE] = Console()
    app[WATCHERS] = Watchers()
    app[operations.READINESS] = readiness
    app[operations.METRICS_PAGE] = MetricsPage(services.begin_render_metrics)
    app[operations.SHOWS_OPERATORS_PAGES] = shows_operators_pages
    app[operations.SHOWS_API] = shows_api
    app.on_shutdown.append(_dismiss_viewers)
    return app


async def _dismiss_viewers(app: web.Application) -> None:
    app[WATCHERS].stop()
    if live := app[SERVICES].live:
        await live.dismiss_viewers()


def create_runner(
    app: web.Application,
    *,
    header_timeout_seconds: float,
    write_timeout_seconds: float = 10.0,
    shutdown_grace_seconds: float,
    keepalive_seconds: float = KEEPALIVE_SECONDS,
    unfinished: UnfinishedRequests | None = None,
) -> Runner:
    """Build the server of an application.

    Args:
        app: from `create_app`.
        header_timeout_seconds: how long a request's headers may take to arrive; then it gets 408 and the connection is
            closed.
        write_timeout_seconds: how long a client may read nothing of a response before its connection is aborted.
        shutdown_grace_seconds: how long `cleanup()` waits for requests in flight.
        keepalive_seconds: how long a connection may be idle before it is closed.
        unfinished: bounds what is kept of requests that have not arrived completely. Runners of one process share it.
            By default it is this one's own, of 32 MiB.
    """
    return Runner(
        app,
        header_timeout_seconds=header_timeout_seconds,
        write_timeout_seconds=write_timeout_seconds,
        shutdown_grace_seconds=shutdown_grace_seconds,
        keepalive_seconds=keepalive_seconds,
        unfinished=unfinished or UnfinishedRequests(UNFINISHED_REQUESTS_BYTES),
    )
