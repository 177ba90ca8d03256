"""The ends of tickets, written in the transaction of their claims: so a claim and its ticket's end are one.

A claim may be made by who holds the ticket's lease: if that was given to somebody else meanwhile, nothing is decided.
"""

from collections.abc import Sequence
from itertools import chain

from psycopg.types.json import Jsonb

from claimsvc.domain import Attempt, Claim, Claimed, ClaimOutcome, HoldContinued, TicketLease
from claimsvc.domain.admission import TicketFacts
from claimsvc.domain.stored_answers import decode, encode
from claimsvc.ports import HandedBatch
from claimsvc.postgres.connections import Driver
from claimsvc.postgres.idempotency import Rows

# Locked, so that the lease cannot change hands before the end is written. Whoever gives leases skips locked tickets.
_LOCK = """
SELECT ticket.id::text, ticket.state = 'started', ticket.lease::text, ticket.claim_id::text, ticket.refusal
FROM unnest(%(names)s::text[], %(places)s::bigint[]) AS wanted (coupon_name, place)
JOIN tickets AS ticket ON ticket.coupon_name = wanted.coupon_name AND ticket.place = wanted.place
ORDER BY ticket.coupon_name, ticket.place
FOR NO KEY UPDATE OF ticket
"""

# Not by its state, so that each is found by its place, not among all that are started. The lease stays, so that after a
# commit in doubt the attempt recognizes its own end.
_END = """
WITH ended AS (
    UPDATE tickets SET state = claimed.state, ended_at = clock_timestamp(), claim_id = claimed.claim_id,
        refusal = claimed.refusal, leased_until = NULL, next_try_at = NULL
    FROM unnest(
        %(names)s::text[], %(places)s::bigint[], %(leases)s::uuid[], %(states)s::text[], %(claims)s::uuid[],
        %(refusals)s::jsonb[]
    ) AS claimed (coupon_name, place, lease, state, claim_id, refusal)
    WHERE tickets.coupon_name = claimed.coupon_name AND tickets.place = claimed.place
        AND tickets.lease = claimed.lease AND tickets.ended_at IS NULL
    RETURNING 1
)
SELECT 1 / (count(*) = %(count)s)::int FROM ended
"""


def _ticket_of(attempt: Attempt) -> TicketLease | None:
    """The ticket that a claim is made for."""
    return attempt.options.ticket if attempt.options is not None else None


def has_tickets(attempts: Sequence[Attempt], batches: Sequence[HandedBatch]) -> bool:
    """Whether any of these claims is made for a ticket."""
    options = chain((each.options for each in attempts), *(batch.options for batch in batches))
    return any(each is not None and each.ticket is not None for each in options)


async def lock_tickets(driver: Driver, attempts: Sequence[Attempt]) -> Rows | None:
    """Lock and query the tickets that the attempts are made for, in the current pipeline; None without any."""
    wanted = [(each.coupon_name, lease.place) for each in attempts if (lease := _ticket_of(each)) is not None]
    if not wanted:
        return None
    return await driver.execute(
        _LOCK, {"names": [name for name, _ in wanted], "places": [place for _, place in wanted]}
    )


async def found_tickets(rows: Rows | None) -> dict[str, TicketFacts]:
    """Return the tickets that were queried, by id."""
    if rows is None:
        return {}
    return {
        id_: TicketFacts(is_started, lease, claim_id, None if refusal is None else decode(refusal))
        for id_, is_started, lease, claim_id, refusal in await rows.fetchall()
    }


async def end_tickets(driver: Driver, ends: Sequence[tuple[str, TicketLease, ClaimOutcome]]) -> None:
    """Write the ends of tickets: the coupon, the lease, and the outcome of the claim."""
    if not ends:
        return
    claims = [_claim_of(outcome) for _, _, outcome in ends]
    await driver.execute(
        _END,
        {
            "names": [name for name, _, _ in ends],
            "places": [lease.place for _, lease, _ in ends],
            "leases": [lease.token for _, lease, _ in ends],
            "states": ["refused" if claim is None else "claimed" for claim in claims],
            "claims": [None if claim is None else claim.id for claim in claims],
            "refusals": [
                Jsonb(encode(outcome)) if claim is None else None
                for claim, (_, _, outcome) in zip(claims, ends, strict=True)
            ],
            "count": len(ends),
        },
    )


def _claim_of(outcome: ClaimOutcome) -> Claim | None:
    """The claim that a ticket ends with; None if it is refused."""
    return outcome.claim if isinstance(outcome, Claimed | HoldContinued) else None
