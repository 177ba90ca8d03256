"""Errors of the client: no answer, or an answer that is not an outcome of the request."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem document of the service (RFC 9457). Compare `slug`; `title` and `detail` are for people.

    `document` is the complete document, including members of this problem only (such as `errors` of a bad request).
    """

    slug: str
    status: int
    title: str
    detail: str
    request_id: str
    document: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.status} {self.slug}: {self.detail} (request {self.request_id})"


class ClaimClientError(Exception):
    """Base class of all errors of this client."""


class UnavailableError(ClaimClientError):
    """The request got no definite answer in spite of retries. It may or may not have taken effect.

    Send it again later with the same `key`: it then takes effect at most once.

    Args:
        reason: why the last attempt failed.
        attempts: number of attempts.
        key: the Idempotency-Key of the request; None if it has none.
        request_id: the `X-Request-ID` of the request, as in the service's log.
        problem: the last answer, if there was one: `lock-busy`, `unavailable`, ...
        retry_after_seconds: the `Retry-After` of the last answer, if it had one.
    """

    def __init__(
        self,
        reason: str,
        *,
        attempts: int,
        key: str | None,
        request_id: str,
        problem: Problem | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(f"{reason} (request {request_id}, sent {attempts} times)")
        self.attempts = attempts
        self.key = key
        self.request_id = request_id
        self.problem = problem
        self.retry_after_seconds = retry_after_seconds


class UnexpectedAnswerError(ClaimClientError):
    """The answer is not one of a claim service, or not one that this client understands."""


class ProblemError(ClaimClientError):
    """The service answered with a `problem` that is not an outcome of the request."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


class BadRequestError(ProblemError):
    """The request is invalid: for example its name, amount or path.

    `errors` says what is wrong and where, as the service does: each has a `detail`, and a `pointer` into the body or
    the name of a `parameter`. The message has them, too.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        found = problem.document.get("errors")
        listed = found if isinstance(found, list) else []
        self.errors: tuple[Mapping[str, Any], ...] = tuple(each for each in listed if isinstance(each, Mapping))

    def __str__(self) -> str:
        told = [f"{each.get('pointer') or each.get('parameter') or '#'}: {each.get('detail')}" for each in self.errors]
        return "\n".join([str(self.problem), *told])


class UnauthorizedError(ProblemError):
    """The token is missing or unknown."""


class ForbiddenError(ProblemError):
    """The token is valid, but lacks the permission."""


class ServiceFailedError(ProblemError):
    """The service failed (status 500): report the problem's `request_id`. The outcome is unknown."""


class UnknownCouponError(ClaimClientError):
    """The coupon whose claims were to be listed does not exist."""

    def __init__(self, coupon_name: str) -> None:
        super().__init__(f"there is no coupon {coupon_name!r}")
        self.coupon_name = coupon_name
