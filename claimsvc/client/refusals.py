"""Maps problems to the outcomes of each call. Other problems become `Refused` or an error."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from claimsvc.client.errors import BadRequestError, ForbiddenError, Problem, ServiceFailedError, UnauthorizedError
from claimsvc.client.outcomes import (
    AlreadyClaimed,
    Claim,
    ClaimCancelled,
    CouponExists,
    Ended,
    HoldExpired,
    KeyReused,
    NotEligible,
    NotStarted,
    Paused,
    Refused,
    SoldOut,
    UnknownClaim,
    UnknownCoupon,
)
from claimsvc.client.reading import Members, claim_of
from claimsvc.client.sending import ClientResponse

_T = TypeVar("_T")
Refusals = Mapping[str, Callable[[ClientResponse], _T]]

# The statuses of refusals. Other statuses from 400 to 499 mean that the request is invalid.
_REFUSALS = frozenset({403, 404, 409, 410, 422})


def refusal(answer: ClientResponse, refusals: Refusals[_T]) -> _T | Refused:
    """Convert an unsuccessful answer into an outcome.

    Args:
        answer: its status is not that of success.
        refusals: outcomes of the call by the slug of their problem.

    Raises:
        ProblemError: the problem is not about coupons or claims, but about the request or the service.
        UnexpectedAnswerError: the answer is not a problem of a claim service.
    """
    problem = answer.problem
    if problem is None:
        raise answer.unexpected("neither a success nor a problem")
    if problem.slug in refusals:
        return refusals[problem.slug](answer)
    _raise_if_error(problem)
    return Refused(problem, **answer.about())


def _raise_if_error(problem: Problem) -> None:
    if problem.status == 401:
        raise UnauthorizedError(problem)
    if problem.slug == "forbidden":
        raise ForbiddenError(problem)
    if problem.status >= 500:
        raise ServiceFailedError(problem)
    if problem.slug == "not-found" or problem.status not in _REFUSALS:
        raise BadRequestError(problem)


def _with_its_claim(kind: Callable[..., _T]) -> Callable[[ClientResponse], _T]:
    """Return a reader for a problem that contains its claim."""

    def read(document: object) -> Claim:
        return claim_of(Members(document).take("claim", dict))

    return lambda answer: kind(answer.read(read), **answer.about())


def _alone(kind: Callable[..., _T]) -> Callable[[ClientResponse], _T]:
    """Return a reader for a problem without further members."""
    return lambda answer: kind(**answer.about())


def _not_started(answer: ClientResponse) -> NotStarted:
    starts_at = answer.read(lambda document: Members(document).time("starts_at"))
    return NotStarted(starts_at, answer.retry_after_seconds, **answer.about())


def _not_eligible(answer: ClientResponse) -> NotEligible:
    reasons = answer.read(lambda document: Members(document).take("reasons", list))
    return NotEligible(tuple(reasons), **answer.about())


_KEY_REUSED: dict[str, Callable[[ClientResponse], KeyReused]] = {"key-reused": _alone(KeyReused)}
OF_A_COUPON: Refusals[UnknownCoupon] = {"unknown-coupon": _alone(UnknownCoupon)}
OF_A_CLAIM: Refusals[UnknownClaim] = {"unknown-claim": _alone(UnknownClaim)}
OF_CLAIMING: Refusals[
    AlreadyClaimed | SoldOut | UnknownCoupon | NotStarted | Ended | Paused | NotEligible | KeyReused
] = {
    **OF_A_COUPON,
    **_KEY_REUSED,
    "already-claimed": _with_its_claim(AlreadyClaimed),
    "sold-out": _alone(SoldOut),
    "not-started": _not_started,
    "ended": _alone(Ended),
    "paused": _alone(Paused),
    "not-eligible": _not_eligible,
}
OF_CONFIRMING: Refusals[HoldExpired | ClaimCancelled | UnknownClaim | KeyReused] = {
    **OF_A_CLAIM,
    **_KEY_REUSED,
    "hold-expired": _with_its_claim(HoldExpired),
    "claim-cancelled": _with_its_claim(ClaimCancelled),
}
OF_CANCELLING: Refusals[HoldExpired | UnknownClaim] = {**OF_A_CLAIM, "hold-expired": _with_its_claim(HoldExpired)}
OF_CREATING: Refusals[CouponExists | KeyReused] = {**_KEY_REUSED, "coupon-exists": _alone(CouponExists)}
