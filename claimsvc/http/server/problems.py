"""RFC 9457 problems: the only place that knows which outcome or failure has which status.

The flow is one way: a strategy answers with an outcome, or raises a failure; the table here turns it into a problem;
`/problems/{slug}` and the OpenAPI document are read from that same table.
"""

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from aiohttp import hdrs, web
from pydantic import Field

from claimsvc import domain, errors
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


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """One kind of refusal: its stable name, its status, and what a caller should know about it."""

    slug: str
    status: int
    title: str
    meaning: str
    advice: str
    headers: Mapping[str, str] | None = None

    @property
    def type(self) -> str:
        """The URI reference that names this kind of problem; the service answers it with an explanation."""
        return f"/problems/{self.slug}"


BAD_REQUEST = Problem(
    "bad-request",
    400,
    "The request is not valid",
    "The request, or its body, is not what the contract asks for. `errors` says what and where.",
    "Correct the request before sending it again.",
)
UNAUTHORIZED = Problem(
    "unauthorized",
    401,
    "A key or a token is needed",
    "The request carries no key or token, or one that is unknown, expired or revoked.",
    "Send `Authorization: Bearer <key or token>`; `claimsvc key create` makes keys, and your identity provider tokens.",
    {hdrs.WWW_AUTHENTICATE: "Bearer"},
)
FORBIDDEN = Problem(
    "forbidden",
    403,
    "Permission denied",
    "The key or token is valid, but lacks the permission.",
    "Use a key with the scope that this operation names.",
)
NOT_YOUR_CLAIM = Problem(
    "not-your-claim",
    403,
    "Not your claim",
    "The claim, or the `user_id` in the request, belongs to a different user.",
    "Leave `user_id` out, or send that user's token.",
)
NOT_FOUND = Problem(
    "not-found", 404, "Nothing is here", "No route has this path.", "See /openapi.json or /docs for the routes."
)
UNKNOWN_COUPON = Problem(
    "unknown-coupon",
    404,
    "Unknown coupon",
    "There is no coupon of that name, or none of that type.",
    "Check the name; it is case-sensitive.",
)
NOT_ELIGIBLE = Problem(
    "not-eligible",
    403,
    "Not for this user",
    "The coupon's rules or lists do not admit this user; `reasons` lists what is not met.",
    "Do not retry until the user's attributes or claims change.",
)
UNKNOWN_CLAIM = Problem(
    "unknown-claim",
    404,
    "Unknown claim",
    "There is no claim of that id.",
    "Use the `id` from the 201 response.",
)
LOCK_NOT_HELD = Problem(
    "lock-not-held",
    404,
    "Nobody holds this lock",
    "No instance holds the lock of this coupon; nothing was released.",
    "Nothing: the lock is free. `GET /api/locks` lists those that are held.",
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
ALREADY_CLAIMED = Problem(
    "already-claimed",
    409,
    "Already claimed",
    "This user holds a claim of this coupon already; `claim` is it.",
    "Do not retry: the user holds the unit.",
)
SOLD_OUT = Problem(
    "sold-out", 409, "Sold out", "No unit of this coupon is left.", "Do not retry: the answer will stay the same."
)
NOT_STARTED = Problem(
    "not-started",
    409,
    "Not started yet",
    "The coupon cannot be claimed before `starts_at`.",
    "Retry after `Retry-After` seconds.",
)
ENDED = Problem(
    "ended",
    409,
    "Ended",
    "The coupon can no longer be claimed: its period is over, or it was archived.",
    "Do not retry: the answer will stay the same.",
)
PAUSED = Problem(
    "paused",
    409,
    "Paused",
    "The coupon is paused by its operator; existing claims are not affected.",
    "Retry later.",
)
CLAIM_CANCELLED = Problem(
    "claim-cancelled",
    409,
    "The claim was cancelled",
    "The claim was cancelled, so it cannot be confirmed.",
    "Claim again.",
)
AMOUNT_BELOW_CLAIMED = Problem(
    "amount-below-claimed",
    409,
    "More is claimed than that",
    "More units are claimed or held than the new amount; nothing was changed. `claimed` says how many.",
    "Choose an amount that is no less, or cancel claims first.",
)
EMPTY_PERIOD = Problem(
    "empty-period",
    409,
    "It would end before it starts",
    "`ends_at` must be after `starts_at`; nothing was changed.",
    "Choose a later end, or an earlier start.",
)
AMOUNT_IS_CODES = Problem(
    "amount-is-codes",
    409,
    "The amount is the number of its codes",
    "The coupon has codes, so its amount is how many there are; nothing was changed.",
    "Add codes to raise it.",
)
ROWS_REFUSED = Problem(
    "rows-refused",
    422,
    "Some rows cannot be added",
    "Not every row can be added, so none was. `rejected` says which and why: `bad-row`, `bad-code`, `bad-expiry`, "
    "`expired`, `duplicate` of a row before it, or `exists` already, with this coupon or another.",
    "Correct these rows, or send `atomic=false` to add the others.",
)
PATTERN_TOO_SMALL = Problem(
    "pattern-too-small",
    409,
    "The pattern makes too few codes",
    "A pattern has to make at least 1000 times as many codes as are asked for, so that they cannot be guessed; "
    "nothing was added.",
    "Use a longer pattern.",
)
UNKNOWN_CODE = Problem(
    "unknown-code", 404, "Unknown code", "There is no such code.", "Check the code; it is case-sensitive."
)
ALREADY_REDEEMED = Problem(
    "already-redeemed",
    409,
    "Already redeemed",
    "The code was redeemed before, so it cannot be redeemed again, nor its claim be cancelled.",
    "Do not retry: the answer will stay the same.",
)
CODE_NOT_CLAIMED = Problem(
    "code-not-claimed",
    409,
    "No claim has the code",
    "No claim has this code: none was made or confirmed yet, or it was cancelled.",
    "Claim the coupon first, or confirm the claim.",
)
CODE_EXPIRED = Problem(
    "code-expired",
    410,
    "The code has expired",
    "The code's `expires_at` has passed.",
    "Do not retry: the answer will stay the same.",
)
HOLD_EXPIRED = Problem(
    "hold-expired",
    410,
    "The hold has expired",
    "The hold was not confirmed in time, so its unit was given back.",
    "Claim again.",
)
KEY_REUSED = Problem(
    "key-reused",
    422,
    "The Idempotency-Key was used for something else",
    "Another request was sent under the same Idempotency-Key before; nothing was done.",
    "Use a new key for each request, and the same key only to retry it.",
)
KEY_IN_FLIGHT = Problem(
    "key-in-flight",
    409,
    "The same request is in progress",
    "A request with this Idempotency-Key is still being processed.",
    "Retry after `Retry-After` seconds with the same key.",
    {hdrs.RETRY_AFTER: "1"},
)
QUOTA_EXCEEDED = Problem(
    "quota-exceeded",
    429,
    "Quota exceeded",
    "This user or address has exceeded its quota; nothing was done. `violated-policies` names the quota.",
    "Retry after `Retry-After` seconds; `RateLimit-Policy` states the quota.",
)
COUPON_EXISTS = Problem(
    "coupon-exists",
    409,
    "The coupon exists already",
    "There is a coupon of that name already; it was not changed.",
    "Choose another name.",
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
    {hdrs.ACCEPT: "application/json", hdrs.ACCEPT_ENCODING: "gzip"},
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
INTERNAL_ERROR = Problem(
    "internal-error",
    500,
    "Something went wrong here",
    "The service failed in a way that it should not; the log has the reason under this request id.",
    "Report the request id. A claim may have succeeded: look it up before asking again.",
)
LOCK_BUSY = Problem(
    "lock-busy",
    503,
    "The coupon is busy",
    "The coupon's lock was held by others for the whole time that a claim may wait; nothing was decided.",
    "Retry after `Retry-After` seconds.",
)
TOO_MANY_VIEWERS = Problem(
    "too-many-viewers",
    503,
    "Too many viewers",
    "The console of this instance has reached its limit of viewers.",
    "Retry after `Retry-After` seconds, or open the console of another instance: each shows all of them.",
    {hdrs.RETRY_AFTER: "5"},
)
UNAVAILABLE = Problem(
    "unavailable",
    503,
    "Unavailable for now",
    "Something that the service needs does not answer, or the service is full; it could not give a definite answer.",
    "Retry after `Retry-After` seconds.",
)

PROBLEMS: Mapping[str, Problem] = {
    problem.slug: problem
    for problem in (
        BAD_REQUEST,
        UNAUTHORIZED,
        FORBIDDEN,
        NOT_YOUR_CLAIM,
        NOT_FOUND,
        UNKNOWN_COUPON,
        UNKNOWN_CLAIM,
        NOT_ELIGIBLE,
        LOCK_NOT_HELD,
        METHOD_NOT_ALLOWED,
        REQUEST_TIMEOUT,
        ALREADY_CLAIMED,
        SOLD_OUT,
        NOT_STARTED,
        ENDED,
        PAUSED,
        CLAIM_CANCELLED,
        AMOUNT_BELOW_CLAIMED,
        EMPTY_PERIOD,
        AMOUNT_IS_CODES,
        ROWS_REFUSED,
        PATTERN_TOO_SMALL,
        UNKNOWN_CODE,
        ALREADY_REDEEMED,
        CODE_NOT_CLAIMED,
        CODE_EXPIRED,
        HOLD_EXPIRED,
        KEY_REUSED,
        KEY_IN_FLIGHT,
        QUOTA_EXCEEDED,
        COUPON_EXISTS,
        BODY_TOO_LARGE,
        URI_TOO_LONG,
        UNSUPPORTED_MEDIA_TYPE,
        STRESS_TEST_RUNS,
        EXPECTATION_FAILED,
        HEADERS_TOO_LARGE,
        INTERNAL_ERROR,
        LOCK_BUSY,
        TOO_MANY_VIEWERS,
        UNAVAILABLE,
    )
}


# What is left of the unions of outcomes when the successes are taken away.
Refusal = (
    domain.AlreadyClaimed
    | domain.SoldOut
    | domain.UnknownCoupon
    | domain.NotStarted
    | domain.Ended
    | domain.Paused
    | domain.NotEligible
    | domain.KeyReused
    | domain.AlreadyCancelled
    | domain.HoldExpired
    | domain.UnknownClaim
    | domain.NotYourClaim
    | domain.AmountBelowClaimed
    | domain.PeriodIsEmpty
    | domain.CouponExists
    | domain.LockNotHeld
    | domain.AmountIsCodes
    | domain.RowsRefused
    | domain.PatternTooSmall
    | domain.UnknownCode
    | domain.AlreadyRedeemed
    | domain.CodeNotClaimed
    | domain.CodeExpired
)

PROBLEM_OF_OUTCOME: Mapping[type[Refusal], Problem] = {
    domain.AlreadyClaimed: ALREADY_CLAIMED,
    domain.SoldOut: SOLD_OUT,
    domain.UnknownCoupon: UNKNOWN_COUPON,
    domain.NotStarted: NOT_STARTED,
    domain.Ended: ENDED,
    domain.Paused: PAUSED,
    domain.NotEligible: NOT_ELIGIBLE,
    domain.KeyReused: KEY_REUSED,
    domain.AlreadyCancelled: CLAIM_CANCELLED,
    domain.HoldExpired: HOLD_EXPIRED,
    domain.UnknownClaim: UNKNOWN_CLAIM,
    domain.NotYourClaim: NOT_YOUR_CLAIM,
    domain.AmountBelowClaimed: AMOUNT_BELOW_CLAIMED,
    domain.PeriodIsEmpty: EMPTY_PERIOD,
    domain.CouponExists: COUPON_EXISTS,
    domain.LockNotHeld: LOCK_NOT_HELD,
    domain.AmountIsCodes: AMOUNT_IS_CODES,
    domain.RowsRefused: ROWS_REFUSED,
    domain.PatternTooSmall: PATTERN_TOO_SMALL,
    domain.UnknownCode: UNKNOWN_CODE,
    domain.AlreadyRedeemed: ALREADY_REDEEMED,
    domain.CodeNotClaimed: CODE_NOT_CLAIMED,
    domain.CodeExpired: CODE_EXPIRED,
}
_FAILURES: Mapping[type[errors.TransientError], Problem] = {
    errors.LockBusyError: LOCK_BUSY,
    errors.UnavailableError: UNAVAILABLE,
    errors.TransientError: UNAVAILABLE,
}
_OUTCOME_NAMES: Mapping[type, str] = {
    **domain.OUTCOME_NAMES,
    asyncio.CancelledError: "cancelled",
    **{kind: problem.slug for kind, problem in (*PROBLEM_OF_OUTCOME.items(), *_FAILURES.items())},
}
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


def outcome_name(result: domain.Outcome | BaseException) -> str:
    """What a claim came to, in a word: the slug of its problem, if it has one."""
    return _OUTCOME_NAMES.get(type(result), INTERNAL_ERROR.slug)


def bad_body(detail: str, *, pointer: str = "#") -> RefusedError:
    """A body that is wrong at one place; `pointer` is an RFC 6901 pointer in its URI fragment form."""
    return RefusedError(BAD_REQUEST, errors=(BodyError(detail, pointer),))


def _head(problem: Problem) -> Head:
    headers = {**RESPONSE_HEADERS, hdrs.CONTENT_TYPE: CONTENT_TYPE, **(problem.headers or {})}
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
        problem = next(_FAILURES[kind] for kind in type(failure).__mro__ if kind in _FAILURES)
        return respond_in_detail(problem, request_id, failure.detail, retry_after_seconds=failure.retry_after_seconds)
    if isinstance(failure, web.HTTPException) and failure.status in _HTTP_STATUSES:
        reply = respond(_HTTP_STATUSES[failure.status], request_id)
        if isinstance(failure, web.HTTPMethodNotAllowed):
            reply.headers[hdrs.ALLOW] = ", ".join(sorted(failure.allowed_methods))
        return reply
    return respond(INTERNAL_ERROR, request_id)
