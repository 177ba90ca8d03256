"""The expectations of every coupon with a queue: pure functions that return a sentence about a violation, or None.

What they compare is on the service's clock, exact to its digits: the service decides under locks of its own, and its
times tell in which order. Only `refusals_were_due` compares the two clocks.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import groupby, pairwise

from stress_test.draw_expectations import DRAW_EXPECTATIONS, start_order
from stress_test.expectations import (
    Violation,
    answers_name_their_asker,
    claimed_by_is_the_winners,
    one_claim_per_user,
    outcomes_in_words,
    some,
    stock_adds_up,
)
from stress_test.history import ALREADY_CLAIMED, QUEUE_FULL, QUEUED, SOLD_OUT, TicketSeen, is_unknown
from stress_test.tickets import QueueCase, most_starts, under_way, waiting, with_a_unit

_ENDS = ("claimed", "refused", "expired", "left", "dead")
_SECOND = timedelta(seconds=1)


def _users(tickets: Iterable[TicketSeen]) -> str:
    return some(each.user_id for each in tickets)


# Who joins, and who is refused.


def only_queue_answers(case: QueueCase) -> str | None:
    """Every answer is one that the contract has for a claim of a coupon with a queue."""
    allowed = (QUEUED, QUEUE_FULL, SOLD_OUT, ALREADY_CLAIMED)
    counts = case.history.counts()
    foreign = {each: number for each, number in counts.items() if each not in allowed and not is_unknown(each)}
    return f"answers outside the contract: {outcomes_in_words(foreign)}" if foreign else None


def one_ticket_per_user(case: QueueCase) -> str | None:
    """A ticket names its asker. Whoever asks again gets the same one, and no two users share one."""
    told: defaultdict[str, set[str]] = defaultdict(set)
    for attempt in case.history.with_outcome(QUEUED):
        ticket = attempt.ticket
        if ticket is None or (ticket.user_id, ticket.coupon_name) != (attempt.user_id, attempt.coupon_name):
            return f"a ticket of another user or coupon was answered to {attempt.user_id}"
        told[attempt.user_id].add(ticket.id)
    doubled = [user for user, ids in told.items() if len(ids) > 1]
    doubled += [user for user, number in Counter(each.user_id for each in case.tickets.listed).items() if number > 1]
    return f"users with more than one ticket ({len(set(doubled))}): {some(doubled)}" if doubled else None


def tickets_are_those_told(case: QueueCase) -> str | None:
    """The coupon's list has exactly the tickets that users were told of, and those of unanswered requests."""
    told = {attempt.ticket.id for attempt in case.history.with_outcome(QUEUED) if attempt.ticket is not None}
    unknown = {attempt.user_id for attempt in case.history.attempts if is_unknown(attempt.outcome)}
    listed = {each.id: each.user_id for each in case.tickets.listed}
    lost = len(told - listed.keys())
    strange = [user for id_, user in listed.items() if id_ not in told and user not in unknown]
    if not lost and not strange:
        return None
    return f"tickets that are not listed: {lost}; listed ones that nobody was told of ({len(strange)}): {some(strange)}"


def never_more_wait_than_allowed(case: QueueCase) -> str | None:
    """At no moment do more wait than `max_length`."""
    most = waiting(case.seen).most
    return f"{most} waited at once, allowed: {case.queue.max_length}" if most > case.queue.max_length else None


def nobody_waits_for_units_that_are_not_there(case: QueueCase) -> str | None:
    """Whoever joins a coupon that can be claimed has a unit to come, if nobody before leaves one to others."""
    steps = with_a_unit(case.seen)
    values = dict(zip(steps.times, steps.values, strict=True))
    late = [each for each in case.seen if not case.is_early(each)]
    over = [each for each in late if values[each.joined_at] > case.amount]
    if not over:
        return None
    most = max(values[each.joined_at] for each in over)
    return f"{most} waited for, or had got, one of {case.amount} units when {_users(over)} joined"


def as_many_join_as_may(case: QueueCase) -> str | None:
    """All join for whom there is a place and a unit. If nothing frees a place or a unit, exactly these join."""
    users = {attempt.user_id for attempt in case.history.attempts}
    unknown = {attempt.user_id for attempt in case.history.attempts if is_unknown(attempt.outcome)}
    early = len([each for each in case.seen if case.is_early(each)])
    units = case.amount if early == 0 else max(case.amount, early)
    least = min(len(users - unknown), case.queue.max_length, units)
    if len(case.seen) >= least:
        return None
    return f"tickets: {len(case.seen)}, but there were places and units for {least}"


def refusals_were_due(case: QueueCase) -> str | None:
    """The queue was full, or all units were claimed, at some time while the refused request was under way."""
    if case.clock is None:
        refused = [each.user_id for each in case.history.attempts if each.outcome in (QUEUE_FULL, SOLD_OUT)]
        return f"refused, and nobody waited ({len(refused)}): {some(refused)}" if refused else None
    least, most = case.clock
    places, units = waiting(case.seen), with_a_unit(case.seen)
    claimed = with_a_unit([replace(each, joined_at=each.ended_at) for each in _claimed(case) if each.ended_at])
    wrong = []
    for attempt in case.history.attempts:
        span = attempt.started_seconds + least, attempt.finished_seconds + most
        if attempt.outcome == QUEUE_FULL:
            is_due = places.reached(case.queue.max_length, *span) or units.reached(case.amount, *span)
        elif attempt.outcome == SOLD_OUT:
            is_due = claimed.reached(case.amount, *span)
        else:
            continue
        if not is_due:
            wrong.append(attempt.user_id)
    return f"refused while there were places and units ({len(wrong)}): {some(wrong)}" if wrong else None


# Places, and the order of starts.


def places_are_as_they_joined(case: QueueCase) -> str | None:
    """The place that a ticket is given is one behind those who wait."""
    steps = waiting(case.seen)
    wrong: list[TicketSeen] = []
    late = [each for each in case.seen if not case.is_early(each) and each.id in case.tickets.readings]
    for joined_at, group in groupby(late, key=lambda each: each.joined_at):
        joined = list(group)
        together = sum(1 for each in case.seen if each.joined_at == joined_at)
        ahead = steps.before(joined_at)
        given = [case.first_position(each.id) for each in joined]
        expected = range(ahead + 1, ahead + together + 1)
        if len(set(given)) < len(given) or any(place not in expected for place in given):
            wrong += joined
    return f"places that are not behind those who waited ({len(wrong)}): {_users(wrong)}" if wrong else None


def places_never_grow(case: QueueCase) -> str | None:
    """The position of a ticket never grows. It is 0 from its start on, and null once it has ended."""
    wrong = []
    for readings in case.tickets.readings.values():
        places = [each.position for each in readings if each.position is not None]
        if any(later > earlier for earlier, later in pairwise(places)) or any(
            (each.state == "started") != (each.position == 0) or (each.has_ended and each.position is not None)
            for each in readings
        ):
            wrong.append(readings[0])
    return f"tickets whose place grew, or is there without its state ({len(wrong)}): {_users(wrong)}" if wrong else None


def starts_are_in_order(case: QueueCase) -> str | None:
    """Tickets are started in the order of their places: none is overtaken by as many as may be under way."""
    nth = {id_: number for number, id_ in enumerate(start_order(case))}
    started = [each for each in case.started if each.id in nth]
    by_start = sorted(started, key=lambda each: (each.started_at or each.joined_at, nth[each.id]))
    wrong: list[TicketSeen] = []
    for number, ticket in enumerate(by_start):
        overtaken_by = sum(1 for other in by_start[:number] if nth[other.id] > nth[ticket.id])
        if overtaken_by >= case.queue.concurrency:
            wrong.append(ticket)
    return f"overtaken by {case.queue.concurrency} or more ({len(wrong)}): {_users(wrong)}" if wrong else None


# The pace.


def pace_holds(case: QueueCase) -> str | None:
    """Within no second are more started than `rate_per_second`."""
    most = most_starts(case.started, _SECOND)
    return (
        f"{most} starts within a second, allowed: {case.queue.rate_per_second}"
        if (most > case.queue.rate_per_second)
        else None
    )


def concurrency_holds(case: QueueCase) -> str | None:
    """Never are more claims under way than `concurrency`. One that is tried again later is not under way meanwhile."""
    most = under_way([each for each in case.started if case.tickets.tries.get(each.id, 1) <= 1]).most
    return (
        f"{most} claims under way at once, allowed: {case.queue.concurrency}"
        if (most > case.queue.concurrency)
        else None
    )


# The ends.


def every_ticket_ends(case: QueueCase) -> str | None:
    """Every ticket has one end, which nobody changes any more, and nobody left."""
    going = [each for each in case.seen if each.state not in _ENDS or each.ended_at is None]
    if going:
        return f"tickets that have not ended ({len(going)}): {_users(going)}"
    changed = [
        readings[-1]
        for id_, readings in case.tickets.readings.items()
        if len({each.state for each in readings if each.has_ended}) > 1 or case.tickets.again.get(id_) != readings[-1]
    ]
    if changed:
        return f"tickets whose end was changed ({len(changed)}): {_users(changed)}"
    gone = [each for each in case.seen if each.state in ("left", "dead")]
    return f"tickets that left, or that the service gave up ({len(gone)}): {_users(gone)}" if gone else None


def ends_are_complete(case: QueueCase) -> str | None:
    """What is claimed was started and has its claim, what is refused has its problem, what expired was not started."""
    wrong = [
        each
        for each in case.seen
        if each.has_ended
        and each.id in case.tickets.readings
        and (
            (each.claim is not None, each.problem is not None) != (each.state == "claimed", each.state == "refused")
            or (each.started_at is not None) == (each.state == "expired")
            or not _are_in_order(each.joined_at, each.started_at, each.ended_at)
            or (each.claim is not None and each.claim.user_id != each.user_id)
        )
    ]
    return f"ends that do not fit their state ({len(wrong)}): {_users(wrong)}" if wrong else None


def _are_in_order(*times: datetime | None) -> bool:
    known = [each for each in times if each is not None]
    return known == sorted(known)


def waits_are_bounded(case: QueueCase) -> str | None:
    """Nobody is started after `max_wait_seconds`, or expired before. All have ended a moment after it."""
    longest, grace = timedelta(seconds=case.queue.max_wait_seconds), timedelta(seconds=case.grace_seconds)
    wrong = [
        each
        for each in case.seen
        if (each.started_at is not None and each.started_at - case.waits_from(each) > longest)
        or (each.ended_at is not None and each.ended_at - case.waits_from(each) > longest + grace)
        or (each.state == "expired" and each.ended_at is not None and each.ended_at - case.waits_from(each) < longest)
    ]
    return f"tickets that ended too early or too late ({len(wrong)}): {_users(wrong)}" if wrong else None


def claimed_tickets_are_the_claims(case: QueueCase) -> str | None:
    """Exactly as many units were given as tickets are claimed, and each claim is that of a ticket, of its user."""
    claimed = _claimed(case)
    recorded = {claim.user_id: claim.id for claim in case.state.claims}
    told = {each.user_id: each.claim.id for each in claimed if each.claim is not None}
    wrong = [user for user in told if recorded.get(user) != told[user]]
    wrong += sorted(recorded.keys() - {each.user_id for each in claimed})
    if not wrong and len(claimed) == len(case.state.claims) <= case.amount:
        return None
    return f"tickets claimed: {len(claimed)}, claims recorded: {len(case.state.claims)}, units: {case.amount}" + (
        f"; differing: {some(wrong)}" if wrong else ""
    )


def units_are_given(case: QueueCase) -> str | None:
    """Tickets are refused only for want of units. Nobody expires where half of the wait is enough for all."""
    claimed, seen = _claimed(case), case.seen
    refused = [each for each in seen if each.state == "refused"]
    if refused and (len(claimed) < case.amount or any(each.problem != "sold-out" for each in refused)):
        return f"claimed: {len(claimed)} of {case.amount} units, yet refused ({len(refused)}): {_users(refused)}"
    expected = min(case.amount, len(seen))
    needed = len(seen) / case.queue.rate_per_second
    if len(claimed) < expected and needed <= case.queue.max_wait_seconds / 2:
        return f"claimed: {len(claimed)}, though there were units and time for {expected}"
    return None


def _claimed(case: QueueCase) -> list[TicketSeen]:
    return [each for each in case.seen if each.state == "claimed"]


QueueExpectation = Callable[[QueueCase], str | None]

QUEUE_EXPECTATIONS: Sequence[QueueExpectation] = (
    only_queue_answers,
    one_ticket_per_user,
    tickets_are_those_told,
    never_more_wait_than_allowed,
    nobody_waits_for_units_that_are_not_there,
    as_many_join_as_may,
    refusals_were_due,
    places_are_as_they_joined,
    places_never_grow,
    starts_are_in_order,
    pace_holds,
    concurrency_holds,
    every_ticket_ends,
    ends_are_complete,
    waits_are_bounded,
    claimed_tickets_are_the_claims,
    units_are_given,
)

_OF_EVERY_COUPON = (stock_adds_up, one_claim_per_user, claimed_by_is_the_winners)


def judge_queue(case: QueueCase) -> list[Violation]:
    """Return the expectations that one coupon with a queue violates."""
    verdicts = [(each.__name__, each(case)) for each in QUEUE_EXPECTATIONS]
    if (draw := case.tickets.draw) is not None:
        verdicts += [(each.__name__, each(case, draw)) for each in DRAW_EXPECTATIONS]
    verdicts.append((answers_name_their_asker.__name__, answers_name_their_asker(case.history)))
    verdicts += [(each.__name__, each(case.history, case.state)) for each in _OF_EVERY_COUPON]
    return [
        Violation(name.replace("_", "-"), case.history.coupon.name, sentence)
        for name, sentence in verdicts
        if sentence is not None
    ]
