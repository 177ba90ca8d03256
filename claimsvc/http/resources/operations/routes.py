"""The routes for operators: health, metrics, the OpenAPI document, and explanations of problems."""

import asyncio
from collections.abc import Callable

from aiohttp import hdrs, web

from claimsvc.application.readiness import Check, Readiness
from claimsvc.domain.problems import UNAVAILABLE
from claimsvc.http.framework import parameters, schemas
from claimsvc.http.framework.routing import Route, Success, ok
from claimsvc.http.resources.operations import pages
from claimsvc.http.resources.operations.docs import DOCS
from claimsvc.http.resources.operations.metrics_page import MetricsPage
from claimsvc.http.server import problems
from claimsvc.http.server.observers import REQUEST_ID
from claimsvc.http.server.response import Reply
from claimsvc.http.server.wire import RESPONSE_HEADERS

READINESS: web.AppKey[Readiness] = web.AppKey("readiness", Readiness)
METRICS_PAGE: web.AppKey[MetricsPage] = web.AppKey("metrics_page", MetricsPage)
SHOWS_OPERATORS_PAGES: web.AppKey[bool] = web.AppKey("shows_operators_pages", bool)
"""Whether the application answers operators; false if they have a port of their own."""
SHOWS_API: web.AppKey[bool] = web.AppKey("shows_api", bool)
"""Whether the application has the API; false on the port for operators."""
OPENAPI_DOCUMENT: web.AppKey[Callable[[], bytes]] = web.AppKey("openapi_document")


async def livez(request: web.Request) -> Reply:
    """Answer 200 while the process is alive. Dependencies are not checked, so that their outage restarts nothing."""
    return ok(schemas.LiveBody("ok"))


async def health(request: web.Request) -> Reply:
    """The same as `/livez`, for clients of other services that ask here."""
    return await livez(request)


async def healthcheck(request: web.Request) -> Reply:
    """The same as `/livez`, for clients of other services that ask here."""
    return await livez(request)


async def readyz(request: web.Request, query: parameters.ReadyQuery) -> Reply:
    """Answer 200 if all dependencies are usable and this instance is not stopping, otherwise 503."""
    if query.is_verbose() and not request.app[SHOWS_OPERATORS_PAGES]:
        raise problems.RefusedError(problems.NOT_FOUND, "`verbose` is answered on the port for operators.")
    report = await request.app[READINESS].report()
    down = [name for name, check in report.items() if not check.is_ok]
    shown = {name: _shown(check) for name, check in report.items()} if query.is_verbose() else {}
    if not down:
        return ok(schemas.ReadyBody("ok", shown))
    return problems.respond_in_detail(
        UNAVAILABLE,
        request[REQUEST_ID],
        f"Not usable: {', '.join(down)}.",
        checks=shown,
        retry_after_seconds=1,
    )


def _shown(check: Check) -> problems.CheckBody:
    return problems.CheckBody("ok" if check.is_ok else "down", check.detail)


async def metrics(request: web.Request) -> web.Response:
    """The metrics, in the text format of Prometheus or in the OpenMetrics format."""
    content, content_type = await request.app[METRICS_PAGE].render(request.headers.get(hdrs.ACCEPT, ""))
    return web.Response(body=content, headers={**RESPONSE_HEADERS, hdrs.CONTENT_TYPE: content_type})


async def openapi_json(request: web.Request) -> web.Response:
    """This document."""
    headers = {**RESPONSE_HEADERS, hdrs.CONTENT_TYPE: "application/json"}
    # Built in a thread, so that claims are not held up by the first request.
    document = await asyncio.to_thread(request.app[OPENAPI_DOCUMENT])
    return web.Response(body=document, headers=headers)


async def explain_problem(request: web.Request, path: parameters.ProblemPath) -> web.StreamResponse | Reply:
    """Explain a problem type: as JSON, or as a page if `Accept` contains `text/html`."""
    problem = problems.PROBLEMS.get(path.slug)
    if problem is None:
        return problems.respond(problems.NOT_FOUND, request[REQUEST_ID])
    if "text/html" not in request.headers.get(hdrs.ACCEPT, ""):
        return ok(schemas.ProblemKindBody(problem.type, problem.title, problem.status, problem.meaning, problem.advice))
    return pages.explanation(problem)


async def home(request: web.Request) -> web.Response:
    """The page that says what runs here, and where to go."""
    has_api = request.app[SHOWS_API]
    return pages.home(request.host, has_api=has_api, has_operators_pages=request.app[SHOWS_OPERATORS_PAGES])


async def docs(request: web.Request) -> web.Response:
    """Swagger UI with this document."""
    return request.app[DOCS].respond(request, "index.html")


async def docs_file(request: web.Request) -> web.Response:
    """A file of Swagger UI."""
    return request.app[DOCS].respond(request, request.match_info["file"])


_METRICS = ("text/plain", "application/openmetrics-text")
_PAGE = Success(200, "A page.", content_types=("text/html",))

ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        "/livez",
        livez,
        tag="operations",
        summary="Liveness",
        success=Success(200, "The process is alive.", schemas.LiveBody),
    ),
    Route(
        "GET",
        "/health",
        health,
        tag="operations",
        summary="Liveness, under another path",
        success=Success(200, "The process is alive.", schemas.LiveBody),
    ),
    Route(
        "GET",
        "/healthcheck",
        healthcheck,
        tag="operations",
        summary="Liveness, under another path",
        success=Success(200, "The process is alive.", schemas.LiveBody),
    ),
    Route(
        "GET",
        "/readyz",
        readyz,
        tag="operations",
        summary="Readiness",
        success=Success(200, "This instance is ready for requests.", schemas.ReadyBody),
        problems=(UNAVAILABLE, problems.NOT_FOUND),
    ),
    Route(
        "GET",
        "/metrics",
        metrics,
        tag="operations",
        summary="Metrics for Prometheus",
        for_operators=True,
        success=Success(200, "The metrics.", content_types=_METRICS),
        problems=(problems.NOT_FOUND,),
    ),
    Route(
        "GET",
        "/openapi.json",
        openapi_json,
        tag="operations",
        summary="This document",
        success=Success(200, "The OpenAPI 3.1 document."),
    ),
    Route(
        "GET",
        "/problems/{slug}",
        explain_problem,
        tag="operations",
        summary="Explain a problem type",
        success=Success(
            200, "The explanation.", schemas.ProblemKindBody, content_types=("application/json", "text/html")
        ),
        problems=(problems.NOT_FOUND,),
    ),
    Route("GET", "/", home, tag="operations", summary="What runs here", success=_PAGE, documented=False),
    Route("GET", "/docs", docs, tag="operations", summary="Swagger UI", success=_PAGE, documented=False),
    Route(
        "GET",
        "/docs/{file}",
        docs_file,
        tag="operations",
        summary="A file of Swagger UI",
        success=_PAGE,
        documented=False,
    ),
)
