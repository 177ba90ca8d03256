"""RFC 9457 problems over HTTP: their bodies and headers, and the problems that only HTTP has.

Problems that do not depend on HTTP are declared in `claimsvc.domain.problems`.
"""

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
from claimsvc.http.server.wire import (
    MAX_BODY_BYTES,
    MAX_HEAD_BYTES,
    MAX_HEADER_BYTES,
    MAX_HEADERS,
    MAX_LINE_BYTES,
    RESPONSE_HEADERS,
    dump,
)

CONTENT_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class CheckBody:
    """The state of one dependency."""

    status: Literal["ok", "down"]
    detail: str


@dataclass(frozen=True, slots=True)
class ProblemBody:
    """An RFC 9457 problem. `type` is stable: decide by it, never by `title` or `detail`."""

    type: Annotated[str, Field(examples=["/problems/sold-out"])]
    title: str
    status: Annotated[int, Field(ge=400, le=599)]
    detail: str
    request_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,128}$")]


@dataclass(frozen=True, slots=True)
class BodyError:
    """An error in the body. `pointer` is the place: an RFC 6901 JSON pointer as a URI fragment."""

    detail: str
    pointer: Annotated[str, Field(examples=["#/amount"])]


@dataclass(frozen=True, slots=True)
class ParameterError:
    """An error in the path, the query or a header. `parameter` is its name; empty if no parameter can be named."""

    detail: str
    parameter: Annotated[str, Field(examples=["limit"])]


InputError = BodyError | ParameterError


@dataclass(frozen=True, slots=True)
class BadRequestBody(ProblemBody):
    """The request is not valid; `errors` lists what is wrong and where."""

    errors: list[InputError]


@dataclass(frozen=True, slots=True)
class UnreadyBody(ProblemBody):
    """The instance is not ready; `checks` shows which dependency is down."""

    checks: dict[str, CheckBody]


NOT_FOUND = Problem(
    "not-found", 404, "Not found", "No route has this path.", "See /openapi.json or /docs for the routes."
)
FOREIGN_ORIGIN = Problem(
    "foreign-origin",
    403,
    "The request comes from a page of another origin",
    "`Origin` is not one of this service's own, and CLAIMSVC_CORS_ORIGINS does not name it. Nothing was done.",
    "Name the origin in CLAIMSVC_CORS_ORIGINS, or its host in CLAIMSVC_ALLOWED_HOSTS, if the page is yours.",
)
MISDIRECTED = Problem(
    "misdirected",
    421,
    "The request is addressed to another host",
    "`Host` is not a name under which this service may be changed. Nothing was done.",
    "Use the address that the service printed at its start, or name the host in CLAIMSVC_ALLOWED_HOSTS.",
)
METHOD_NOT_ALLOWED = Problem(
    "method-not-allowed",
    405,
    "Method not allowed",
    "This path does not support this method.",
    "Use a method that the `Allow` header lists.",
)
REQUEST_TIMEOUT = Problem(
    "request-timeout",
    408,
    "Request timeout",
    "The request did not arrive completely within the time limit. Nothing was done.",
    "Send the request again, without pauses, on a new connection.",
)
BODY_TOO_LARGE = Problem(
    "body-too-large",
    413,
    "The body is too large",
    f"The body is larger than {MAX_BODY_BYTES} bytes, as it was sent or after it was decompressed.",
    "Send a smaller body.",
)
URI_TOO_LONG = Problem(
    "uri-too-long",
    414,
    "The URI is too long",
    f"The request line is longer than {MAX_LINE_BYTES} bytes.",
    "Send a shorter path and query.",
)
UNSUPPORTED_MEDIA_TYPE = Problem(
    "unsupported-media-type",
    415,
    "The body is not JSON in UTF-8",
    "The body must be `application/json` in UTF-8, plain or compressed with gzip.",
    "Send `Content-Type: application/json`, and no `Content-Encoding` other than `gzip`.",
)
STRESS_TEST_RUNS = Problem(
    "stress-test-runs",
    409,
    "A stress test is running",
    "Another stress test is still running.",
    "Wait until it has ended; it takes two minutes at most.",
)
EXPECTATION_FAILED = Problem(
    "expectation-failed",
    417,
    "Unknown expectation",
    "The `Expect` header is not `100-continue`.",
    "Omit the header, or send `Expect: 100-continue`.",
)
HEADERS_TOO_LARGE = Problem(
    "headers-too-large",
    431,
    "The headers are too large",
    f"The request has more than {MAX_HEADERS} headers, one that is larger than {MAX_HEADER_BYTES} bytes, or more than "
    f"{MAX_HEAD_BYTES} bytes of them.",
    "Send fewer or smaller headers.",
)
TOO_MANY_VIEWERS = Problem(
    "too-many-viewers",
    503,
    "Too many viewers",
    "As many watch the console, or tickets, of this instance as it allows.",
    "Retry after `Retry-After` seconds. Until then read the ticket; each instance shows the same console.",
)

_OF_HTTP = (
    FOREIGN_ORIGIN,
    NOT_FOUND,
    METHOD_NOT_ALLOWED,
    REQUEST_TIMEOUT,
    BODY_TOO_LARGE,
    URI_TOO_LONG,
    UNSUPPORTED_MEDIA_TYPE,
    STRESS_TEST_RUNS,
    EXPECTATION_FAILED,
    MISDIRECTED,
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
"""Further headers of every response with the problem."""

# The exceptions that aiohttp's router raises.
_HTTP_STATUSES: Mapping[int, Problem] = {404: NOT_FOUND, 405: METHOD_NOT_ALLOWED}


class RefusedError(Exception):
    """A request is refused before its use case is called.

    Args:
        problem: the problem that answers it.
        detail: what is wrong with this request; None for the problem's `meaning`.
        errors: what is wrong and where, for `BAD_REQUEST`.
        close: whether the connection is closed, so that the rest of the request need not be read.
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
    """The refusal of a body with one error.

    Args:
        detail: what is wrong, as a sentence.
        pointer: where: an RFC 6901 JSON pointer as a URI fragment; `#` is the whole body.
    """
    return RefusedError(BAD_REQUEST, errors=(BodyError(detail, pointer),))


def _head(problem: Problem) -> Head:
    headers = {**RESPONSE_HEADERS, hdrs.CONTENT_TYPE: CONTENT_TYPE, **HEADERS.get(problem, {})}
    return Head(problem.status, headers)


def _constant_body(problem: Problem) -> bytes:
    """The part of a problem's encoded body that no request changes: all before the value of `request_id`."""
    body = ProblemBody(problem.type, problem.title, problem.status, problem.meaning, "")
    return dump(body).removesuffix(b'"}')


# Prepared at import, because most responses of a popular coupon are the problem `sold-out`.
HEADS = {problem: _head(problem) for problem in PROBLEMS.values()}
_CONSTANT_BODIES = {problem: _constant_body(problem) for problem in PROBLEMS.values()}


def respond(problem: Problem, request_id: str) -> Reply:
    """The response of a problem without further details."""
    # Request ids contain only letters, digits and `._-`, so no escaping is needed.
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
    """The response of a problem with details of this request.

    Args:
        problem: the problem.
        request_id: the request's id.
        detail: what happened; None for the problem's `meaning`.
        errors: what is wrong and where, for `BAD_REQUEST`.
        checks: the state of each dependency, for `/readyz`.
        retry_after_seconds: when to retry; rounded up to whole seconds, at least 1.
    """
    body: ProblemBody = ProblemBody(problem.type, problem.title, problem.status, detail or problem.meaning, request_id)
    if problem is BAD_REQUEST:
        body = BadRequestBody(body.type, body.title, body.status, body.detail, request_id, list(errors))
    elif checks is not None:
        body = UnreadyBody(body.type, body.title, body.status, body.detail, request_id, dict(checks))
    reply = Reply(HEADS[problem], dump(body))
    if retry_after_seconds is not None:
        # Never 0, because clients of a busy service must not retry immediately.
        reply.headers[hdrs.RETRY_AFTER] = str(max(1, math.ceil(retry_after_seconds)))
    return reply


def from_failure(failure: BaseException, request_id: str) -> Reply:
    """The response of an exception. An unexpected one becomes an internal error that shows nothing of it."""
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
