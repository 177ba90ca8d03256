"""Renders refusals over HTTP: the problem of each, with the further members of its body."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
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
from claimsvc.representations.claims import claim_body, listed_claim_body
from claimsvc.representations.codes import refused_bodies
from claimsvc.representations.tickets import TicketBody, ticket_body

_QUOTA_EXCEEDED = TypeAdapter(schemas.QuotaExceededBody)
# Clients retry within a day, because an operator may move the start of a campaign.
_MAX_RETRY_AFTER_SECONDS = 86_400
# Tickets are read again within a minute, because their queue may become faster.
_MAX_LOOK_SECONDS = 60.0

# Refusals whose body has members beyond those of every problem: the body's class, and the values of these members,
# of the outcome and the request's id.
_Extended = tuple[type[ProblemBody], Callable[[Any, str], tuple[object, ...]]]
_PLAIN: _Extended = (ProblemBody, lambda _, __: ())
_EXTENDED: Mapping[type[domain.Refusal], _Extended] = {
    domain.AlreadyClaimed: (schemas.AlreadyClaimedBody, lambda outcome, _: (claim_body(outcome.claim),)),
    domain.HoldExpired: (schemas.ClaimProblemBody, lambda outcome, _: (claim_body(outcome.claim),)),
    domain.AlreadyCancelled: (schemas.ClaimProblemBody, lambda outcome, _: (claim_body(outcome.claim),)),
    domain.ClaimEnded: (schemas.ClaimProblemBody, lambda outcome, _: (claim_body(outcome.claim),)),
    domain.TicketStarted: (
        schemas.TicketProblemBody,
        # Without its code: who may leave a queue may not see every code.
        lambda outcome, request_id: (shown_ticket(outcome.ticket, request_id, shows_code=False),),
    ),
    domain.NotStarted: (schemas.NotStartedBody, lambda outcome, _: (outcome.starts_at,)),
    domain.NotEligible: (NotEligibleBody, lambda outcome, _: ([reason_body(reason) for reason in outcome.reasons],)),
    domain.AmountBelowClaimed: (schemas.AmountBelowClaimedBody, lambda outcome, _: (outcome.claimed,)),
    domain.RowsRefused: (RowsRefusedBody, lambda outcome, _: (outcome.refused_count, refused_bodies(outcome))),
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
    if type(outcome) in _EXTENDED:
        reply = Reply(HEADS[problem], dump(problem_body(outcome, request_id)))
    else:
        reply = respond(problem, request_id)
    if isinstance(outcome, domain.NotStarted):
        reply.headers[hdrs.RETRY_AFTER] = retry_after(outcome.seconds)
    elif isinstance(outcome, domain.QueueFull):
        reply.headers[hdrs.RETRY_AFTER] = retry_after(outcome.retry_seconds)
    return reply


def problem_body(outcome: domain.Outcome, request_id: str) -> ProblemBody:
    """The body of a refusal; see `refused`."""
    problem = problem_of(outcome)
    # Its keys are classes of outcomes.
    kind, values = _EXTENDED.get(type(outcome), _PLAIN)  # type: ignore[arg-type]
    common = problem.type, problem.title, problem.status, problem.meaning, request_id
    return kind(*common, *values(outcome, request_id))


def shown_ticket(ticket: domain.Ticket, request_id: str, *, shows_code: bool) -> TicketBody:
    """The body of a ticket, with the problem with which it was refused.

    Args:
        ticket: the ticket.
        request_id: of the request that reads it, which its problem contains.
        shows_code: whether the reader may see the codes of its user's claims.
    """
    problem: Any = None if ticket.refusal is None else problem_body(ticket.refusal, request_id)
    if not shows_code and isinstance(ticket.refusal, domain.AlreadyClaimed):
        problem = replace(problem, claim=listed_claim_body(ticket.refusal.claim, shows_code=False))
    return ticket_body(ticket, shows_code=shows_code, problem=problem)


def next_look(reply: Reply, ticket: domain.Ticket) -> Reply:
    """Add `Retry-After` to a reply with a ticket that has not ended: after how long it is worth to read it again.

    It is half of the time that the ticket is likely to wait: so it is read more often as its turn comes near, and a few
    times in all.
    """
    if not ticket.state.is_end:
        reply.headers[hdrs.RETRY_AFTER] = retry_after(min((ticket.eta_seconds or 0.0) / 2, _MAX_LOOK_SECONDS))
    return reply


def retry_after(seconds: float) -> str:
    """The value of `Retry-After`: whole seconds, from 1 to a day."""
    return str(min(max(1, math.ceil(seconds)), _MAX_RETRY_AFTER_SECONDS))


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
