"""How outcomes that are not a success are answered: each as its problem, with what it has to add."""

import math
from collections.abc import Sequence

from aiohttp import hdrs
from pydantic import TypeAdapter

from claimsvc import domain
from claimsvc.http.framework import schemas
from claimsvc.http.framework.problem_bodies import NotEligibleBody, RowsRefusedBody, reason_body, refused_bodies
from claimsvc.http.server.problems import HEADS, PROBLEM_OF_OUTCOME, QUOTA_EXCEEDED, ProblemBody, Refusal, respond
from claimsvc.http.server.response import Reply
from claimsvc.http.server.wire import dump

_QUOTA_EXCEEDED = TypeAdapter(schemas.QuotaExceededBody)


_LONGEST_RETRY_AFTER_SECONDS = 86_400


def from_outcome(outcome: Refusal, request_id: str) -> Reply:
    """The answer to an outcome that is not a success."""
    problem = PROBLEM_OF_OUTCOME[type(outcome)]
    more = _more_of(outcome)
    if more is None:
        return respond(problem, request_id)
    kind, values = more
    reply = Reply(
        HEADS[problem],
        dump(kind(problem.type, problem.title, problem.status, problem.meaning, request_id, *values)),
    )
    if isinstance(outcome, domain.NotStarted):
        # Not longer than a day: the start may be moved.
        reply.headers[hdrs.RETRY_AFTER] = str(min(max(1, math.ceil(outcome.seconds)), _LONGEST_RETRY_AFTER_SECONDS))
    return reply


def _more_of(outcome: Refusal) -> tuple[type[ProblemBody], tuple[object, ...]] | None:
    """The body that says more than its problem, and what it says; None if there is no more to say."""
    match outcome:
        case domain.AlreadyClaimed(claim):
            return schemas.AlreadyClaimedBody, (schemas.claim_body(claim),)
        case domain.HoldExpired(claim) | domain.AlreadyCancelled(claim):
            return schemas.ClaimProblemBody, (schemas.claim_body(claim),)
        case domain.NotStarted(starts_at):
            return schemas.NotStartedBody, (starts_at,)
        case domain.NotEligible(reasons):
            return NotEligibleBody, ([reason_body(each) for each in reasons],)
        case domain.AmountBelowClaimed(claimed):
            return schemas.AmountBelowClaimedBody, (claimed,)
        case domain.RowsRefused():
            return RowsRefusedBody, (outcome.refused_count, refused_bodies(outcome))
    return None


def quota_exceeded(policies: Sequence[str], request_id: str) -> Reply:
    """The answer to a request beyond the quotas of these names."""
    problem = QUOTA_EXCEEDED
    body = schemas.QuotaExceededBody(
        problem.type, problem.title, problem.status, problem.meaning, request_id, list(policies)
    )
    return Reply(HEADS[problem], _QUOTA_EXCEEDED.dump_json(body, by_alias=True))
