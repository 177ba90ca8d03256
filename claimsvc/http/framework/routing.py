"""How a route is declared: once, for aiohttp to serve it and for the OpenAPI document to describe it.

What a handler takes is read from its signature: `path`, `query` and `body` are each validated by the model that they
are annotated with, and the document is generated from those same models.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints
from urllib.parse import urlencode

from aiohttp import hdrs, web
from aiohttp.web_urldispatcher import UrlMappingMatchInfo
from pydantic import BaseModel

from claimsvc.domain import KeyReused, NotYourClaim, Refusal
from claimsvc.domain.outcomes import problem_of, problems_of
from claimsvc.domain.problems import BAD_REQUEST, FORBIDDEN, KEY_IN_FLIGHT, UNAUTHORIZED, Problem
from claimsvc.http.framework.auth import OPEN, Access, Asked, authorize
from claimsvc.http.framework.bodies import read_body
from claimsvc.http.framework.services import SERVICES
from claimsvc.http.framework.streams import Streamed, StreamingBody, on_expectation
from claimsvc.http.framework.validation import validate_path, validate_query
from claimsvc.http.server.problems import (
    BODY_TOO_LARGE,
    REQUEST_TIMEOUT,
    UNSUPPORTED_MEDIA_TYPE,
    RefusedError,
)
from claimsvc.http.server.response import Head, Reply, Response
from claimsvc.http.server.wire import MAX_BODY_BYTES, RESPONSE_HEADERS, dump

Endpoint = Callable[[web.Request], Awaitable[web.StreamResponse]]
Handler = Callable[..., Awaitable[web.StreamResponse | Reply]]

_JSON_HEADERS = {**RESPONSE_HEADERS, hdrs.CONTENT_TYPE: "application/json"}
_OK = Head(200, _JSON_HEADERS)
_CREATED = Head(201, _JSON_HEADERS)


@dataclass(frozen=True, slots=True)
class Success:
    """The answer that a route gives when it can: `body` is a dataclass, or None where it is not JSON.

    `links` say what can be asked next with what it contains, as OpenAPI has them: by name.
    """

    status: int
    description: str
    body: type | None = None
    content_types: tuple[str, ...] = ("application/json",)
    headers: Mapping[str, str] | None = None
    links: Mapping[str, Mapping[str, Any]] | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """One operation.

    Args:
        refusals: the outcomes of its use case that are refusals.
        problems: its other problems, but for those that follow from its inputs, which are added.
        keyed: whether it may be sent under an Idempotency-Key.
        streamed: what its handler takes as an `upload`, if it takes one.
    """

    method: str
    path: str
    handler: Handler
    tag: str
    summary: str
    success: Success
    refusals: tuple[type[Refusal], ...] = ()
    problems: tuple[Problem, ...] = ()
    access: Access = OPEN
    keyed: bool = False
    documented: bool = True
    streamed: Streamed | None = None

    @property
    def operation_id(self) -> str:
        """The handler's name: from the document to the code in one search."""
        return getattr(self.handler, "__name__", "")

    def model(self, name: str) -> type[BaseModel] | None:
        """The model of the handler's `path`, `query` or `body`; None if it takes none."""
        found = get_type_hints(self.handler).get(name)
        return found if isinstance(found, type) and issubclass(found, BaseModel) else None

    def all_problems(self) -> tuple[Problem, ...]:
        """Every problem that this operation can be answered with, below the transport."""
        implied: list[Problem] = []
        if self.access.asked is not Asked.NEVER:
            implied.append(UNAUTHORIZED)
        if self.access.scope is not None:
            implied.append(FORBIDDEN)
            if self.access.for_users:
                implied += problems_of(NotYourClaim)
        if self.streamed or any(self.model(name) for name in ("path", "query", "body")):
            implied.append(BAD_REQUEST)
        if self.keyed:
            implied += [KEY_IN_FLIGHT, *problems_of(KeyReused)]
        if self.streamed or self.model("body"):
            implied += [REQUEST_TIMEOUT, BODY_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE]
        return tuple(dict.fromkeys((*implied, *problems_of(*self.refusals), *self.problems)))


def install(app: web.Application, routes: Iterable[Route]) -> None:
    """Serve the routes; each GET answers HEAD too."""
    for route in routes:
        # aiohttp's own `{name}` does not match braces, and a name with one in it is a bad name, not a missing route.
        pattern = route.path.replace("}", ":[^/]+}")
        endpoint = _endpoint(route)
        most_bytes = route.streamed.most_bytes if route.streamed is not None else MAX_BODY_BYTES
        app.router.add_route(route.method, pattern, endpoint, expect_handler=on_expectation(most_bytes))
        if route.method == hdrs.METH_GET:
            app.router.add_route(hdrs.METH_HEAD, pattern, endpoint)


def shortcut(app: web.Application, handler: Endpoint) -> Endpoint:
    """The application's handler, quicker for paths without variable parts.

    aiohttp's router looks every path up in several steps, and makes an object of what it finds. A path that is
    exactly a route's is found in a table instead, with an object that was made once.
    """
    found: dict[tuple[str, str], tuple[UrlMappingMatchInfo, Endpoint]] = {}
    for route in app.router.routes():
        if isinstance(route.resource, web.PlainResource):
            match = UrlMappingMatchInfo({}, route)
            match.add_app(app)
            match.freeze()
            found[route.method, route.resource.canonical] = match, route.handler

    async def handle(request: web.Request) -> web.StreamResponse:
        known = found.get((request.method, request._message.path))
        if known is None or hdrs.EXPECT in request.headers:
            return await handler(request)
        request._match_info, endpoint = known
        return await endpoint(request)

    return handle


def _endpoint(route: Route) -> Endpoint:
    """The handler with its inputs: who asks is settled before what they ask is looked at."""
    handler, access, streamed = route.handler, route.access, route.streamed
    path_model, query_model, body_model = route.model("path"), route.model("query"), route.model("body")
    names_user = body_model is not None and "user_id" in body_model.model_fields

    async def endpoint(request: web.Request) -> web.StreamResponse:
        caller = await authorize(request, access)
        inputs: dict[str, Any] = {}
        if path_model is not None:
            inputs["path"] = validate_path(path_model, request)
        if query_model is not None:
            inputs["query"] = validate_query(query_model, request)
        if body_model is not None:
            timeout_seconds = request.app[SERVICES].body_timeout_seconds
            # What a token says need not be said again.
            given = {"user_id": caller.user_id} if names_user and caller.user_id is not None else {}
            body = await read_body(request, body_model, timeout_seconds=timeout_seconds, given=given)
            if names_user and access.for_users and not caller.acts_for(getattr(body, "user_id", "")):
                raise RefusedError(problem_of(NotYourClaim()))
            inputs["body"] = body
        if streamed is not None:
            inputs["upload"] = StreamingBody(request, streamed)
        answer = await handler(request, **inputs)
        return Response(answer) if isinstance(answer, Reply) else answer

    return endpoint


def ok(body: object) -> Reply:
    """200 with a body, which is a dataclass of `schemas`."""
    return Reply(_OK, dump(body))


def created(body: object, location: str) -> Reply:
    """201 with a body and the path of what was made."""
    reply = Reply(_CREATED, dump(body))
    reply.headers[hdrs.LOCATION] = location
    return reply


def with_next(request: web.Request, reply: Reply, cursor: str | None) -> Reply:
    """A page with a link to the one after it (RFC 8288), for clients that would rather follow than build."""
    if cursor is not None:
        query = urlencode({**request.query, "cursor": cursor})
        reply.headers[hdrs.LINK] = f'<{request.rel_url.raw_path}?{query}>; rel="next"'
    return reply


NEXT = {"Link": 'the next page, if there is one, as `rel="next"`'}
"""The headers of a page, as the document describes them."""
