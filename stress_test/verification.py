"""Reads a coupon back after its claims were answered, with its tickets if it has a queue, and judges it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from stress_test.client import ReadBackError
from stress_test.expectations import Violation, judge
from stress_test.history import CLAIMED, CouponPlan, CouponState, History, is_unknown
from stress_test.ticket_client import TicketClient
from stress_test.ticket_expectations import judge_queue
from stress_test.tickets import DrawSeen, QueueCase, TicketHistory, most_starts, under_way


@dataclass(frozen=True, slots=True)
class Verified:
    """One coupon, read back and judged.

    Args:
        state: None if it could not be read.
        tickets: None without a queue, or if they could not be read.
    """

    state: CouponState | None
    tickets: TicketHistory | None
    violations: tuple[Violation, ...]


async def promised_draw(client: TicketClient, coupon: CouponPlan) -> DrawSeen | Violation | None:
    """Read what is published of a draw before anybody has joined; None if the coupon's order is not drawn."""
    if coupon.queue is None or coupon.queue.order != "draw":
        return None
    try:
        return await client.read_draw(coupon.name)
    except ReadBackError as failure:
        return Violation("read-back", coupon.name, str(failure))


async def verify(
    client: TicketClient, history: History, promised: DrawSeen | Violation | None, grace_seconds: float
) -> Verified:
    """Read a coupon back and judge it.

    Args:
        client: of the service.
        history: the requests and their answers.
        promised: see `promised_draw`.
        grace_seconds: how much longer than `max_wait_seconds` tickets may take to end.
    """
    coupon, queue = history.coupon, history.coupon.queue
    tickets: TicketHistory | None = None
    try:
        if isinstance(promised, Violation):
            return Verified(None, None, (promised,))
        if queue is not None:
            # Longer than they may take, so that a late end is told as one that is late.
            patience = queue.max_wait_seconds + (coupon.starts_in_seconds or 0) + 2 * grace_seconds + 10
            tickets = await client.follow(history, promised, patience)
        ids = [attempt.claim.id for attempt in history.with_outcome(CLAIMED) if attempt.claim is not None]
        state = await client.read_back(coupon.name, ids)
    except ReadBackError as failure:
        answered = [] if queue is not None else judge(history, None)
        return Verified(None, tickets, (*answered, Violation("read-back", coupon.name, str(failure))))
    if tickets is None or queue is None:
        return Verified(state, None, tuple(judge(history, state)))
    return Verified(state, tickets, tuple(judge_queue(QueueCase(history, queue, tickets, state, grace_seconds))))


def notes_of(histories: Sequence[History], verified: Sequence[Verified]) -> list[str]:
    """Return what is worth saying of a round, and is no violation."""
    unknown, found = unknowns(histories, verified)
    notes = [f"claims without a definite answer: {unknown}; of these recorded: {found}"] if unknown else []
    for one in verified:
        if one.tickets is not None and one.tickets.listed:
            listed = one.tickets.listed
            states = ", ".join(f"{state} {number}" for state, number in sorted(ends_of(one.tickets).items()))
            a_second, at_once = most_starts(listed, timedelta(seconds=1)), under_way(listed).most
            starts = sorted(each.started_at for each in listed if each.started_at is not None)
            took = f" over {(starts[-1] - starts[0]).total_seconds():.1f} s" if starts else ""
            notes.append(
                f"tickets: {len(listed)} ({states}); started{took}, "
                f"at most {a_second} within a second, {at_once} under way"
            )
    return notes


def ends_of(tickets: TicketHistory) -> Counter[str]:
    """Count the tickets by state."""
    return Counter(each.state for each in tickets.listed)


def unknowns(histories: Sequence[History], verified: Sequence[Verified]) -> tuple[int, int]:
    """Return how many claims got no definite answer, and how many of their users have a recorded claim."""
    unknown = found = 0
    for history, one in zip(histories, verified, strict=True):
        users = [attempt.user_id for attempt in history.attempts if is_unknown(attempt.outcome)]
        unknown += len(users)
        if one.state is not None:
            answered = {attempt.user_id for attempt in history.with_outcome(CLAIMED)}
            found += len((set(users) - answered) & {claim.user_id for claim in one.state.claims})
    return unknown, found
