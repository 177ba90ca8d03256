"""RFC 9457 problems over HTTP: bodies and headers of the problems in `claimsvc.domain.problems`, and HTTP's own."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from aiohttp import hdrs, web
from pydantic import Field

from claimsvc import errors
from claimsvc.domain.outcomes import refusals
from claimsvc.domain.problems import (
    BAD_REQUEST,
    FORBIDDEN,
    INTERNAL_ERROR,
    KEY_IN_FLIGHT,
    OF_EVERY_WAY_IN,
    UNAUTHORIZED,
    Problem,
    problem_of_failure,
)
from claimsvc.http.server.response import Head, Reply
from claimsvc.http.server.wire import MAX_BODY_BYTES, RESPONSE_HEADERS, dump

CONTENT_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class CheckBody:
    """How one dependency is."""

    status: Literal["ok", "down"]
    detail: str


@dataclass(frozen=True, slots=True)
class ProblemBody:
    """RFC 9457. `type` is stable: decide by it, never by `title` or `detail`."""

    type: Annotated[str, Field(examples=["/problems/sold-out"])]
    title: str
    status: Annotated[int, Field(ge=400, le=599)]
    detail: str
    request_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,128}$")]


@dataclass(frozen=True, slots=True)
class BodyError:
    """What is wrong with the body, and where: an RFC 6901 pointer into it, as a URI fragment."""

    detail: str
    pointer: Annotated[str, Field(examples=["#/amount"])]


@dataclass(frozen=True, slots=True)
class ParameterError:
    """What is wrong with the path or the query, and in which parameter; empty if it is in none of them."""

    detail: str
    parameter: Annotated[str, Field(examples=["limit"])]


InputError = BodyError | ParameterError


@dataclass(frozen=True, slots=True)
class BadRequestBody(ProblemBody):
    """A problem with what was sent."""

    errors: list[InputError]


@dataclass(frozen=True, slots=True)
class UnreadyBody(ProblemBody):
    """Which dependency is down."""

    checks: dict[str, CheckBody]


NOT_FOUND = Problem(
    "not-found", 404, "Nothing is here", "No route has this path.", "See /openapi.json or /docs for the routes."
)
METHOD_NOT_ALLOWED = Problem(
    "method-not-allowed",
    405,
    "Method not allowed",
    "This path does not answer that method.",
    "Use one of those in `Allow`.",
)
REQUEST_TIMEOUT = Problem(
    "request-timeout",
    408,
    "The request did not arrive in time",
    "The rest of the request did not arrive in time, so nothing was done.",
    "Send the whole request at once, on a new connection.",
)
BODY_TOO_LARGE = Problem(
    "body-too-large",
    413,
    "The body is too large",
    f"The body, as sent or once inflated, is larger than {MAX_BODY_BYTES} bytes.",
    "Send a smaller body.",
)
URI_TOO_LONG = Problem(
    "uri-too-long", 414, "The path is too long", "The request line is too long.", "Send a shorter path and query."
)
UNSUPPORTED_MEDIA_TYPE = Problem(
    "unsupported-media-type",
    415,
    "The body is not JSON in UTF-8",
    "Bodies are `application/json` in UTF-8, plain or compressed with gzip.",
    "Send `Content-Type: application/json`, and no `Content-Encoding` other than `gzip`.",
)
STRESS_TEST_RUNS = Problem(
    "stress-test-runs",
    409,
    "A stress test is running",
    "The stress test that was started before this one has not ended yet.",
    "Wait for its end; it has a limit of two minutes.",
)
EXPECTATION_FAILED = Problem(
    "expectation-failed",
    417,
    "Unknown expectation",
    "`Expect` asks for something other than `100-continue`.",
    "Leave the header out.",
)
HEADERS_TOO_LARGE = Problem(
    "headers-too-large",
    431,
    "The headers are too large",
    "The request has too many headers, or one that is too large.",
    "Send fewer or smaller headers.",
)
TOO_MANY_VIEWERS = Problem(
    "too-many-viewers",
    503,
    "Too many viewers",
    "The console of this instance has reached its limit of viewers.",
    "Retry after `Retry-After` seconds, or open the console of another instance: each shows all of them.",
)

_OF_HTTP = (
    NOT_FOUND,
    METHOD_NOT_ALLOWED,
    REQUEST_TIMEOUT,
    BODY_TOO_LARGE,
    URI_TOO_LONG,
    UNSUPPORTED_MEDIA_TYPE,
    STRESS_TEST_RUNS,
    EXPECTATION_FAILED,
    HEADERS_TOO_LARGE,
    TOO_MANY_VIEWERS,
)
PROBLEMS: Mapping[str, Problem] = {
    problem.slug: problem
    for problem in (
        *(problem for _, problem in refusals()),
        *OF_EVERY_WAY_IN,
        *_OF_HTTP,
    )
}
"""Every problem by its slug."""

HEADERS: Mapping[Problem, Mapping[str, str]] = {
    UNAUTHORIZED: {hdrs.WWW_AUTHENTICATE: "Bearer"},
    KEY_IN_FLIGHT: {hdrs.RETRY_AFTER: "1"},
    UNSUPPORTED_MEDIA_TYPE: {hdrs.ACCEPT: "application/json", hdrs.ACCEPT_ENCODING: "gzip"},
    TOO_MANY_VIEWERS: {hdrs.RETRY_AFTER: "5"},
}
"""Headers that every answer with the problem has."""

# What aiohttp raises by itself: no route, and no such method on it.
_HTTP_STATUSES: Mapping[int, Problem] = {404: NOT_FOUND, 405: METHOD_NOT_ALLOWED}


class RefusedError(Exception):
    """Raised while a request is being read, where no outcome exists yet; answered as its problem.

    `close` ends the connection after the answer, for requests whose rest should not be waited for.
    """

    def __init__(
        self,
        problem: Problem,
        detail: str | None = None,
        *,
        errors: Sequence[InputError] = (),
        close: bool = False,
    ) -> None:
        super().__init__(problem.slug)
        self.problem = problem
        self.detail = detail
        self.errors = errors
        self.close = close


def bad_body(detail: str, *, pointer: str = "#") -> RefusedError:
    """A body that is wrong at one place; `pointer` is an RFC 6901 pointer in its URI fragment form."""
    return RefusedError(BAD_REQUEST, errors=(BodyError(detail, pointer),))


def _head(problem: Problem) -> Head:
    headers = {**RESPONSE_HEADERS, hdrs.CONTENT_TYPE: CONTENT_TYPE, **HEADERS.get(problem, {})}
    return Head(problem.status, headers)


def _constant_body(problem: Problem) -> bytes:
    """Everything of a problem's body that no request changes: all but the end of its last member."""
    body = ProblemBody(problem.type, problem.title, problem.status, problem.meaning, "")
    return dump(body).removesuffix(b'"}')


# Sold out is what a busy coupon answers nearly always, so its answer is put together once.
HEADS = {problem: _head(problem) for problem in PROBLEMS.values()}
_CONSTANT_BODIES = {problem: _constant_body(problem) for problem in PROBLEMS.values()}


def respond(problem: Problem, request_id: str) -> Reply:
    """The answer to a problem about which nothing more is to be said."""
    # A request id is of letters, digits and `._-` only, so it needs no escaping.
    body = b'%b%b"}' % (_CONSTANT_BODIES[problem], request_id.encode("ascii"))
    return Reply(HEADS[problem], body)


def respond_in_detail(
    problem: Problem,
    request_id: str,
    detail: str | None,
    *,
    errors: Sequence[InputError] = (),
    checks: Mapping[str, CheckBody] | None = None,
    retry_after_seconds: float | None = None,
) -> Reply:
    """The answer to a problem with what this request adds to it; `detail` None keeps the usual sentence."""
    body: ProblemBody = ProblemBody(problem.type, problem.title, problem.status, detail or problem.meaning, request_id)
    if problem is BAD_REQUEST:
        body = BadRequestBody(body.type, body.title, body.status, body.detail, request_id, list(errors))
    elif checks is not None:
        body = UnreadyBody(body.type, body.title, body.status, body.detail, request_id, dict(checks))
    reply = Reply(HEADS[problem], dump(body))
    if retry_after_seconds is not None:
        # A whole number, and never 0: "at once" is what a busy service should not invite.
        reply.headers[hdrs.RETRY_AFTER] = str(max(1, math.ceil(retry_after_seconds)))
    return reply


def from_failure(failure: BaseException, request_id: str) -> Reply:
    """The answer to an exception; whatever is not known here is an internal error, of which nothing is told."""
    if isinstance(failure, RefusedError):
        reply = respond_in_detail(failure.problem, request_id, failure.detail, errors=failure.errors)
        reply.closes = failure.close
        return reply
    if isinstance(failure, errors.PermissionDeniedError):
        return respond_in_detail(FORBIDDEN, request_id, f"This operation needs the scope `{failure.scope}`.")
    if isinstance(failure, errors.TransientError):
        problem = problem_of_failure(failure)
        return respond_in_detail(problem, request_id, failure.detail, retry_after_seconds=failure.retry_after_seconds)
    if isinstance(failure, web.HTTPException) and failure.status in _HTTP_STATUSES:
        reply = respond(_HTTP_STATUSES[failure.status], request_id)
        if isinstance(failure, web.HTTPMethodNotAllowed):
            reply.headers[hdrs.ALLOW] = ", ".join(sorted(failure.allowed_methods))
        return reply
    return respond(INTERNAL_ERROR, request_id)
