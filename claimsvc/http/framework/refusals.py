"""Renders refusals over HTTP: the problem of each, with the further members of its body."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiohttp import hdrs
from pydantic import TypeAdapter

from claimsvc import domain
from claimsvc.domain.outcomes import problem_of
from claimsvc.domain.problems import QUOTA_EXCEEDED
from claimsvc.http.framework import schemas
from claimsvc.http.framework.problem_bodies import NotEligibleBody, RowsRefusedBody, reason_body
from claimsvc.http.server.problems import HEADS, ProblemBody, respond
from claimsvc.http.server.response import Reply
from claimsvc.http.server.wire import dump
from claimsvc.representations.claims import claim_body
from claimsvc.representations.codes import refused_bodies

_QUOTA_EXCEEDED = TypeAdapter(schemas.QuotaExceededBody)
# Clients retry within a day, because an operator may move the start of a campaign.
_MAX_RETRY_AFTER_SECONDS = 86_400

# Refusals whose body has members beyond those of every problem: the body's class, and the values of these members.
_Extended = tuple[type[ProblemBody], Callable[[Any], tuple[object, ...]]]
_EXTENDED: Mapping[type[domain.Refusal], _Extended] = {
    domain.AlreadyClaimed: (schemas.AlreadyClaimedBody, lambda outcome: (claim_body(outcome.claim),)),
    domain.HoldExpired: (schemas.ClaimProblemBody, lambda outcome: (claim_body(outcome.claim),)),
    domain.AlreadyCancelled: (schemas.ClaimProblemBody, lambda outcome: (claim_body(outcome.claim),)),
    domain.ClaimEnded: (schemas.ClaimProblemBody, lambda outcome: (claim_body(outcome.claim),)),
    domain.NotStarted: (schemas.NotStartedBody, lambda outcome: (outcome.starts_at,)),
    domain.NotEligible: (NotEligibleBody, lambda outcome: ([reason_body(reason) for reason in outcome.reasons],)),
    domain.AmountBelowClaimed: (schemas.AmountBelowClaimedBody, lambda outcome: (outcome.claimed,)),
    domain.RowsRefused: (RowsRefusedBody, lambda outcome: (outcome.refused_count, refused_bodies(outcome))),
}


def body_of(refusal: type[domain.Refusal]) -> type[ProblemBody]:
    """The class of a refusal's body."""
    return _EXTENDED[refusal][0] if refusal in _EXTENDED else ProblemBody


def refused(outcome: domain.Outcome, request_id: str) -> Reply:
    """Render a refusal.

    Args:
        outcome: the outcome, which must be a refusal.
        request_id: the request's id.
    """
    problem = problem_of(outcome)
    extended = _EXTENDED.get(type(outcome))  # type: ignore[arg-type] # keys are classes of outcomes
    if extended is None:
        return respond(problem, request_id)
    body, values = extended
    reply = Reply(
        HEADS[problem],
        dump(body(problem.type, problem.title, problem.status, problem.meaning, request_id, *values(outcome))),
    )
    if isinstance(outcome, domain.NotStarted):
        reply.headers[hdrs.RETRY_AFTER] = str(min(max(1, math.ceil(outcome.seconds)), _MAX_RETRY_AFTER_SECONDS))
    return reply


def quota_exceeded(policies: Sequence[str], request_id: str) -> Reply:
    """Render the refusal of a request that exceeds quotas.

    Args:
        policies: the names of the exceeded quotas.
        request_id: the request's id.
    """
    problem = QUOTA_EXCEEDED
    body = schemas.QuotaExceededBody(
        problem.type, problem.title, problem.status, problem.meaning, request_id, list(policies)
    )
    return Reply(HEADS[problem], _QUOTA_EXCEEDED.dump_json(body, by_alias=True))
