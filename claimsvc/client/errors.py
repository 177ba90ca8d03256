"""Failures of the client: what is raised when there is no answer, or one that the caller must do something about."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Problem:
    """What the service said was wrong (RFC 9457). Decide by `slug`, never by `title` or `detail`.

    `document` is all of it, with what this kind of problem alone has (`errors` of a bad request, for one).
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
    """The root of every error that this client raises on purpose."""


class UnavailableError(ClaimClientError):
    """No definite answer came, however often the request was sent: what it asked for may have been done or not.

    Send it again later under the same `key`, and it is answered as if it had been sent once.

    Args:
        reason: what went wrong at last.
        attempts: how often it was sent.
        key: the Idempotency-Key that it was sent under; None for what needs none.
        request_id: its `X-Request-ID`, on the lines of the service's log.
        problem: the last answer, if there was one: `lock-busy`, `unavailable`, ...
        retry_after_seconds: what the service advised to wait, if it did.
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
    """What answers there is no claim service, or one that this client does not understand."""


class ProblemError(ClaimClientError):
    """The service answered with a problem that is no outcome of what was asked; `problem` is it."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


class BadRequestError(ProblemError):
    """The request is not what the contract asks for: a wrong name, amount or path."""


class UnauthorizedError(ProblemError):
    """The service asks for a token, and got none, or none that it knows."""


class ForbiddenError(ProblemError):
    """The token is known, and does not allow this."""


class ServiceFailedError(ProblemError):
    """The service has a defect (status 500): report the problem's `request_id`. Nothing is known of the outcome."""


class UnknownCouponError(ClaimClientError):
    """There is no coupon of the name whose claims were to be listed."""

    def __init__(self, coupon_name: str) -> None:
        super().__init__(f"there is no coupon {coupon_name!r}")
        self.coupon_name = coupon_name
