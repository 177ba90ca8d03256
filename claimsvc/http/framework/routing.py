"""Declares routes. aiohttp serves them, and the OpenAPI document describes them, from the same declaration.

A handler's signature declares its inputs: the models that annotate its parameters `path`, `query` and `body` validate
them, and the OpenAPI document is generated from these models. A `body` with a default may be left out. Nothing that a
client sends is ignored: a route without one of these parameters refuses queries, or bodies, that are not empty. (GET is
an exception: its body has no meaning in HTTP.)
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import Any, get_type_hints
from urllib.parse import urlencode

from aiohttp import hdrs, web
from aiohttp.web_urldispatcher import UrlMappingMatchInfo

from claimsvc.domain import KeyReused, NotYourClaim, Refusal
from claimsvc.domain.outcomes import problems_of
from claimsvc.domain.problems import BAD_REQUEST, FORBIDDEN, KEY_IN_FLIGHT, UNAUTHORIZED, Problem
from claimsvc.http.framework.auth import OPEN, Access, Authentication, authorize, given_by, require_acting_for
from claimsvc.http.framework.bodies import read_body, read_optional_body
from claimsvc.http.framework.services import SERVICES
from claimsvc.http.framework.streams import Streamed, StreamingBody, expect_handler
from claimsvc.http.framework.validation import Nothing, validate_path, validate_query
from claimsvc.http.server.aiohttp_internals import set_match, target_of
from claimsvc.http.server.problems import (
    BODY_TOO_LARGE,
    REQUEST_TIMEOUT,
    UNSUPPORTED_MEDIA_TYPE,
)
from claimsvc.http.server.response import Head, Reply, Response
from claimsvc.http.server.wire import (
    MAX_BODY_BYTES,
    RESPONSE_HEADERS,
    dump,
)
from claimsvc.representations.fields import Request

Endpoint = Callable[[web.Request], Awaitable[web.StreamResponse]]
Handler = Callable[..., Awaitable[web.StreamResponse | Reply]]

# More than any route has.
_MOST_SLASHES = 32
_JSON_HEADERS = {**RESPONSE_HEADERS, hdrs.CONTENT_TYPE: "application/json"}
_OK = Head(200, _JSON_HEADERS)
_CREATED = Head(201, _JSON_HEADERS)
_ACCEPTED = Head(202, _JSON_HEADERS)


@dataclass(frozen=True, slots=True)
class Success:
    """The successful response of a route.

    Args:
        status: the HTTP status.
        description: for the OpenAPI document.
        body: the dataclass of the JSON body; None if the body is not JSON.
        content_types: the content types of the body.
        headers: descriptions of its headers, by name.
        links: OpenAPI's link objects by name: operations that use values of this response.
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
        method: the HTTP method.
        path: the path's template, such as `/api/claims/{id}`.
        handler: answers requests. Its name is the operation's id, and its docstring the operation's description.
        tag: its group in the OpenAPI document.
        summary: its title in the OpenAPI document.
        success: its usual successful response.
        other_successes: successful responses with another status.
        refusals: the refusals among the outcomes of its use case.
        problems: further problems; those that follow from its inputs and access are added.
        access: the callers that may use it.
        keyed: whether it supports `Idempotency-Key`.
        documented: whether the OpenAPI document lists it.
        for_operators: whether it moves to the port for operators, if there is one.
        streamed: the bodies that its handler accepts as `upload`; None if it has no such parameter.
        prefer: what its handler heeds in the header `Prefer`, for the OpenAPI document; empty if nothing.
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
    for_operators: bool = False
    streamed: Streamed | None = None
    other_successes: tuple[Success, ...] = ()
    prefer: str = ""

    @property
    def successes(self) -> tuple[Success, ...]:
        """Every successful response."""
        return (self.success, *self.other_successes)

    @property
    def operation_id(self) -> str:
        """The id in the OpenAPI document: the handler's name."""
        return getattr(self.handler, "__name__", "")

    def model(self, name: str) -> type[Request] | None:
        """The model of the handler's parameter `path`, `query` or `body`; None if it has no such parameter."""
        found = get_type_hints(self.handler).get(name)
        return found if isinstance(found, type) and issubclass(found, Request) else None

    @property
    def reads_body(self) -> bool:
        """Whether a body is read and validated, even if nothing is allowed in it."""
        return self.method != hdrs.METH_GET and self.streamed is None

    @property
    def body_is_optional(self) -> bool:
        """Whether the handler has no parameter `body`, or one with a default."""
        body = signature(self.handler).parameters.get("body")
        return body is None or body.default is not Parameter.empty

    def all_problems(self) -> tuple[Problem, ...]:
        """Every problem that this operation can be answered with, except those of malformed HTTP."""
        implied: list[Problem] = []
        if self.access.authentication is not Authentication.NEVER:
            implied.append(UNAUTHORIZED)
        if self.access.scope is not None:
            implied.append(FORBIDDEN)
            if self.access.for_users:
                implied += problems_of(NotYourClaim)
        if self.documented or self.model("path"):
            implied.append(BAD_REQUEST)
        if self.keyed:
            implied += [KEY_IN_FLIGHT, *problems_of(KeyReused)]
        if self.streamed or self.reads_body:
            implied += [REQUEST_TIMEOUT, BODY_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE]
        return tuple(dict.fromkeys((*implied, *problems_of(*self.refusals), *self.problems)))


def install(app: web.Application, routes: Iterable[Route]) -> None:
    """Add the routes to the application; each GET route answers HEAD too."""
    for route in routes:
        # aiohttp's `{name}` does not match braces, but a name with braces must be answered 400, and not 404.
        pattern = route.path.replace("}", ":[^/]+}")
        endpoint = _endpoint(route)
        max_bytes = route.streamed.max_bytes if route.streamed is not None else MAX_BODY_BYTES
        app.router.add_route(route.method, pattern, endpoint, expect_handler=expect_handler(max_bytes))
        if route.method == hdrs.METH_GET:
            app.router.add_route(hdrs.METH_HEAD, pattern, endpoint)


def with_static_lookup(app: web.Application, handler: Endpoint) -> Endpoint:
    """Wrap the application's handler with a faster lookup of paths without variable parts.

    aiohttp's router tries several steps for each path, and creates an object for each match. The wrapper looks paths
    without variable parts up in a dictionary, with matches that were created beforehand.

    Args:
        app: the application, with its routes.
        handler: the application's handler, which is used for all other paths.
    """
    found: dict[tuple[str, str], tuple[UrlMappingMatchInfo, Endpoint]] = {}
    for route in app.router.routes():
        if isinstance(route.resource, web.PlainResource):
            match = UrlMappingMatchInfo({}, route)
            match.add_app(app)
            match.freeze()
            found[route.method, route.resource.canonical] = match, route.handler

    async def handle(request: web.Request) -> web.StreamResponse:
        target = target_of(request)
        known = found.get((request.method, target))
        if known is None or hdrs.EXPECT in request.headers:
            # The router looks each beginning of a path up, which takes quadratic time; no route has such a path.
            if target.count("/") > _MOST_SLASHES and request.rel_url.raw_path.count("/") > _MOST_SLASHES:
                raise web.HTTPNotFound
            return await handler(request)
        match, endpoint = known
        set_match(request, match)
        return await endpoint(request)

    return handle


def _endpoint(route: Route) -> Endpoint:
    """The endpoint of a route: authorizes the caller, then reads and validates the inputs, and calls the handler."""
    handler, access, streamed = route.handler, route.access, route.streamed
    path_model, query_model, body_model = route.model("path"), route.model("query"), route.model("body")
    reads_body, body_is_optional = route.reads_body, route.body_is_optional
    # Pages for people may be asked for with anything, such as the parameters that a search engine adds.
    refuses_query = query_model is None and route.documented
    names_user = body_model is not None and "user_id" in body_model.model_fields

    async def endpoint(request: web.Request) -> web.StreamResponse:
        caller = await authorize(request, access)
        inputs: dict[str, Any] = {}
        if path_model is not None:
            inputs["path"] = validate_path(path_model, request)
        if query_model is not None:
            inputs["query"] = validate_query(query_model, request)
        elif refuses_query and request.rel_url.raw_query_string:
            validate_query(Nothing, request)
        if reads_body and body_is_optional:
            timeout_seconds = request.app[SERVICES].body_timeout_seconds
            found = await read_optional_body(request, body_model or Nothing, timeout_seconds=timeout_seconds)
            if found is not None and body_model is not None:
                inputs["body"] = found
        elif body_model is not None:
            timeout_seconds = request.app[SERVICES].body_timeout_seconds
            given = given_by(caller) if names_user else {}
            body = await read_body(request, body_model, timeout_seconds=timeout_seconds, given=given)
            if names_user and access.for_users:
                require_acting_for(caller, getattr(body, "user_id", ""))
            inputs["body"] = body
        if streamed is not None:
            inputs["upload"] = StreamingBody(request, streamed)
        answer = await handler(request, **inputs)
        return Response(answer) if isinstance(answer, Reply) else answer

    return endpoint


def ok(body: object) -> Reply:
    """A reply 200; the body is a dataclass."""
    return Reply(_OK, dump(body))


def created(body: object, location: str) -> Reply:
    """A reply 201; the body is a dataclass, and `location` the path of the created resource."""
    reply = Reply(_CREATED, dump(body))
    reply.headers[hdrs.LOCATION] = location
    return reply


def accepted(body: object, location: str) -> Reply:
    """A reply 202; the body is a dataclass, and `location` the path where the outcome will be found."""
    reply = Reply(_ACCEPTED, dump(body))
    reply.headers[hdrs.LOCATION] = location
    return reply


def with_next_link(request: web.Request, reply: Reply, cursor: str | None) -> Reply:
    """Add a `Link` header (RFC 8288) with the URL of the next page.

    Args:
        request: the request of this page.
        reply: this page.
        cursor: where the next page begins; None if this is the last page.
    """
    if cursor is not None:
        query = urlencode({**request.query, "cursor": cursor})
        reply.headers[hdrs.LINK] = f'<{request.rel_url.raw_path}?{query}>; rel="next"'
    return reply


NEXT = {"Link": 'the URL of the next page, with `rel="next"`; absent on the last page'}
"""The headers of a page, for the OpenAPI document."""
