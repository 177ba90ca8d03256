"""Problems: how refusals and failures are answered, at every entry point.

Refusals declare theirs in the table of outcomes (`claimsvc.domain.outcomes`). The constants here are the problems of
failures, and of requests that never reach a use case.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from claimsvc.errors import EXIT_FAILED, LockBusyError, PermissionDeniedError, TransientError, UnavailableError


class RpcCode(StrEnum):
    """The gRPC status codes of outcomes."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    ABORTED = "ABORTED"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    UNAVAILABLE = "UNAVAILABLE"
    INTERNAL = "INTERNAL"


# As google/rpc/code.proto maps them; a row may name a more precise code.
_RPC_CODES: Mapping[int, RpcCode] = {
    401: RpcCode.UNAUTHENTICATED,
    403: RpcCode.PERMISSION_DENIED,
    404: RpcCode.NOT_FOUND,
    405: RpcCode.UNIMPLEMENTED,
    409: RpcCode.FAILED_PRECONDITION,
    410: RpcCode.FAILED_PRECONDITION,
    429: RpcCode.RESOURCE_EXHAUSTED,
    500: RpcCode.INTERNAL,
    503: RpcCode.UNAVAILABLE,
}


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """How a refusal or a failure is answered.

    Args:
        slug: its stable name, on which clients depend.
        status: the HTTP status.
        title: a few words, the same for each occurrence.
        meaning: what happened, and what was done or not.
        advice: what the client should do.
        precise_rpc_code: the gRPC code, if the HTTP status does not imply it.
        exit_status: the exit status of a command.
    """

    slug: str
    status: int
    title: str
    meaning: str
    advice: str
    precise_rpc_code: RpcCode | None = None
    exit_status: int = EXIT_FAILED

    @property
    def type(self) -> str:
        """The URI reference of this kind of problem; the service serves an explanation there."""
        return f"/problems/{self.slug}"

    @property
    def rpc_code(self) -> RpcCode:
        """The gRPC status code."""
        return self.precise_rpc_code or _RPC_CODES.get(self.status, RpcCode.INVALID_ARGUMENT)


BAD_REQUEST = Problem(
    "bad-request",
    400,
    "The request is not valid",
    "The request or its body does not match the contract. `errors` says what is wrong and where.",
    "Correct the request before sending it again.",
)
UNAUTHORIZED = Problem(
    "unauthorized",
    401,
    "A key or a token is needed",
    "The request carries no key or token, or one that is unknown, expired or revoked.",
    "Send `Authorization: Bearer <key or token>`; `claimsvc key create` makes keys, and your identity provider tokens.",
)
KEY_IN_FLIGHT = Problem(
    "key-in-flight",
    409,
    "The same request is in progress",
    "A request with this Idempotency-Key is still being processed.",
    "Retry after `Retry-After` seconds with the same key.",
    RpcCode.ABORTED,
)
QUOTA_EXCEEDED = Problem(
    "quota-exceeded",
    429,
    "Quota exceeded",
    "This user or address has exceeded its quota; nothing was done. `violated-policies` names the quota.",
    "Retry after `Retry-After` seconds; `RateLimit-Policy` states the quota.",
)
FORBIDDEN = Problem(
    "forbidden",
    403,
    "Permission denied",
    "The key or token is valid, but lacks the permission.",
    "Use a key with the scope that this operation names.",
)
LOCK_BUSY = Problem(
    "lock-busy",
    503,
    "The coupon is busy",
    "Others held the coupon's lock for as long as a claim may wait; nothing was decided.",
    "Retry after `Retry-After` seconds.",
)
UNAVAILABLE = Problem(
    "unavailable",
    503,
    "Unavailable for now",
    "A dependency of the service does not respond, or the service is full; there is no definite answer.",
    "Retry after `Retry-After` seconds.",
)
INTERNAL_ERROR = Problem(
    "internal-error",
    500,
    "Internal error",
    "The service failed unexpectedly; its log has the cause under this request id.",
    "Report the request id. A claim may have succeeded: look it up before you retry.",
)

OF_EVERY_WAY_IN = (
    BAD_REQUEST,
    UNAUTHORIZED,
    FORBIDDEN,
    KEY_IN_FLIGHT,
    QUOTA_EXCEEDED,
    INTERNAL_ERROR,
    LOCK_BUSY,
    UNAVAILABLE,
)

_OF_FAILURES: Mapping[type[BaseException], Problem] = {
    PermissionDeniedError: FORBIDDEN,
    LockBusyError: LOCK_BUSY,
    UnavailableError: UNAVAILABLE,
    TransientError: UNAVAILABLE,
}


def problem_of_failure(failure: BaseException) -> Problem:
    """Return the problem with which a failure is answered."""
    return next((_OF_FAILURES[kind] for kind in type(failure).__mro__ if kind in _OF_FAILURES), INTERNAL_ERROR)
