"""Maps problems to the outcomes of each call. Other problems become `Refused` or an error."""

import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, TypeVar, get_args

from claimsvc.client.errors import BadRequestError, ForbiddenError, Problem, ServiceFailedError, UnauthorizedError
from claimsvc.client.outcomes import (
    CancelOutcome,
    ClaimRefusal,
    ConfirmOutcome,
    CreateOutcome,
    LeaveOutcome,
    Outcome,
    Refusal,
    Refused,
    UnknownClaim,
    UnknownCoupon,
    UnknownTicket,
)
from claimsvc.client.reading import Members, claim_of, ticket_of
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


def _reader(kind: type[Outcome]) -> Callable[[ClientResponse], Any]:
    """Reads an outcome of this class from its problem: each field from the member of its name."""
    own = [each.name for each in fields(kind) if each.name not in _OF_EVERY_OUTCOME]

    def read(answer: ClientResponse) -> Outcome:
        return kind(*(_FIELDS[name](answer) for name in own), **answer.about())

    return read


_FIELDS: Mapping[str, Callable[[ClientResponse], Any]] = {
    "claim": lambda answer: answer.read(lambda document: claim_of(Members(document).take("claim", dict))),
    "ticket": lambda answer: answer.read(lambda document: ticket_of(Members(document).take("ticket", dict)))[0],
    "starts_at": lambda answer: answer.read(lambda document: Members(document).time("starts_at")),
    "retry_after_seconds": lambda answer: answer.retry_after_seconds,
    "reasons": lambda answer: tuple(answer.read(lambda document: Members(document).take("reasons", list))),
}
_OF_EVERY_OUTCOME = {each.name for each in fields(Outcome)}


def _slug(kind: type[Outcome]) -> str:
    """The problem of a refusal has the name of its class: `sold-out` is `SoldOut`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", kind.__name__).lower()


def _refusals(outcomes: Any) -> Refusals[Any]:
    """The refusals among a union of outcomes, by the slugs of their problems."""
    kinds = [kind for kind in get_args(outcomes) or (outcomes,) if issubclass(kind, Refusal)]
    return {_slug(kind): _reader(kind) for kind in kinds}


OF_A_COUPON: Refusals[UnknownCoupon] = _refusals(UnknownCoupon)
OF_A_CLAIM: Refusals[UnknownClaim] = _refusals(UnknownClaim)
OF_A_TICKET: Refusals[UnknownTicket] = _refusals(UnknownTicket)
OF_LEAVING: Refusals[LeaveOutcome] = _refusals(LeaveOutcome)
OF_CLAIMING: Refusals[ClaimRefusal] = _refusals(ClaimRefusal)
OF_CONFIRMING: Refusals[ConfirmOutcome] = _refusals(ConfirmOutcome)
OF_CANCELLING: Refusals[CancelOutcome] = _refusals(CancelOutcome)
OF_CREATING: Refusals[CreateOutcome] = _refusals(CreateOutcome)
