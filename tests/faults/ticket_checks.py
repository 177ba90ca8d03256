"""What is wrong with tickets, by the history and the database: pure functions, like those of `checks`.

I7 each ends once and for good, I14 the pace, I15 places and lengths, I17 dead letters.
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import chain, pairwise

from claimsvc.domain import MOST_TRIES, TICKET_ENDS
from claimsvc.tickets.dispatching import LEASE_SECONDS
from tests.faults.checks import DUPLICATE, FALSELY_REFUSED, LOST, PHANTOM, Violation
from tests.support.cluster_state import ClaimRow
from tests.support.history import ALREADY_CLAIMED, JOIN, LEAVE, POLL, SOLD_OUT, TICKET_STARTED, Invocation
from tests.support.ticket_log import NEVER, Change, QueueRow, TicketRow, Tickets

NOT_ENDED = "not ended"
REVIVED = "changed after its end"
TOO_FAST = "too fast"
TOO_MANY_AT_ONCE = "too many at once"
PLACE_GREW = "place grew"
TOO_LONG = "queue too long"
TRIED_FOR_EVER = "tried for ever"

_ENDS = frozenset(map(str, TICKET_ENDS))
_SECOND = timedelta(seconds=1)
_LEASE = timedelta(seconds=LEASE_SECONDS)
# Which state may follow which; a dead letter is requeued or discarded by an operator.
_NEXT = {
    "": {"waiting"},
    "waiting": {"started", "expired", "left"},
    "started": {"started", "claimed", "refused", "dead"},
    "dead": {"started", "left"},
}
# In the order of a ticket's life, as its reader may see it; all ends are one stage.
_STAGES = {"waiting": 0, "started": 1}
_LAST_STAGE = 2


def check_tickets(
    invocations: Sequence[Invocation], claims: Sequence[ClaimRow], found: Tickets, sold_out: Collection[str] = ()
) -> list[Violation]:
    """All checks of tickets; `claims` are the active ones of all coupons, of which some are sold out."""
    asked = [each for each in invocations if each.operation in (JOIN, POLL, LEAVE)]
    changes = by_queue(found.changes)
    return [
        *check_ends(found.tickets),
        *check_refusals(found.tickets, claims, sold_out),
        *check_claims(found.tickets, [each for each in claims if each.coupon in found.queues]),
        *check_joins(asked, found.tickets),
        *check_answers_of_tickets(asked, found.tickets),
        *check_reads(asked),
        *check_changes(found.changes),
        *chain.from_iterable(check_queue(name, queue, changes[name]) for name, queue in found.queues.items()),
    ]


def by_queue(changes: Iterable[Change]) -> Mapping[str, Sequence[Change]]:
    """The changes by coupon, in order."""
    found: defaultdict[str, list[Change]] = defaultdict(list)
    for each in changes:
        found[each.coupon].append(each)
    return found


def check_ends(tickets: Iterable[TicketRow]) -> list[Violation]:
    """I7 and I17: every ticket has ended, and none was tried more often than it may be."""
    found = []
    for each in tickets:
        if each.state not in _ENDS:
            found.append(Violation(NOT_ENDED, f"{_name(each)} is still {each.state}"))
        if each.tries > MOST_TRIES:
            found.append(Violation(TRIED_FOR_EVER, f"{_name(each)} was tried {each.tries} times"))
    return found


def check_claims(tickets: Iterable[TicketRow], claims: Sequence[ClaimRow]) -> list[Violation]:
    """I7: each claimed ticket has its claim, and each claim of a coupon with a queue has its ticket, one to one."""
    found = []
    rows = {row.id: row for row in claims}
    made: Counter[str] = Counter()
    for each in tickets:
        if not each.claim:
            continue
        made[each.claim] += 1
        row = rows.get(each.claim)
        if row is None or (row.coupon, row.user) != (each.coupon, each.user):
            found.append(Violation(LOST, f"{_name(each)} ended with claim {each.claim}, which {_owner(row)}"))
    found += [
        Violation(DUPLICATE, f"{times} tickets ended with claim {claim}", times - 1)
        for claim, times in made.items()
        if times > 1
    ]
    return found + [
        Violation(PHANTOM, f"{row.user} holds claim {row.id} of {row.coupon}, with which no ticket ended")
        for row in claims
        if row.id not in made
    ]


def check_refusals(
    tickets: Iterable[TicketRow], claims: Iterable[ClaimRow], sold_out: Collection[str]
) -> list[Violation]:
    """I9: whoever was refused has a claim by another ticket, or the coupon is sold out. No unit ever comes back."""
    holders = {(row.coupon, row.user) for row in claims}
    found = []
    for each in tickets:
        is_true = {ALREADY_CLAIMED: (each.coupon, each.user) in holders, SOLD_OUT: each.coupon in sold_out}
        if each.state == "refused" and not is_true.get(each.refusal, False):
            found.append(Violation(FALSELY_REFUSED, f"{_name(each)} was refused: {each.refusal}"))
    return found


def check_joins(asked: Iterable[Invocation], tickets: Sequence[TicketRow]) -> list[Violation]:
    """I7: every ticket that somebody was told of is there, and every ticket was asked for."""
    found = []
    rows = {row.id: row for row in tickets}
    told: set[tuple[str, str, str]] = set()
    may_have_joined: set[tuple[str, str]] = set()
    for each in asked:
        if each.operation != JOIN:
            continue
        if each.is_joined:
            told.add((each.ticket, each.coupon, each.user))
        if each.is_joined or (each.is_unknown and each.problem not in ("refused", "closed-unread")):
            may_have_joined.add((each.coupon, each.user))
    for ticket, coupon, user in told:
        row = rows.get(ticket)
        if row is None or (row.coupon, row.user) != (coupon, user):
            what = "is not there" if row is None else f"is {row.user}'s of {row.coupon}"
            found.append(
                Violation(LOST, f"{user} of {coupon} was told of ticket {ticket or 'without an id'}: it {what}")
            )
    return found + [
        Violation(PHANTOM, f"{_name(row)} was joined by no request")
        for row in tickets
        if (row.coupon, row.user) not in may_have_joined
    ]


def check_answers_of_tickets(asked: Iterable[Invocation], tickets: Sequence[TicketRow]) -> list[Violation]:
    """I7: whoever was told of an end, of having left or of being too late was told the truth."""
    found = []
    rows = {row.id: row for row in tickets}
    claims = {(row.coupon, row.user): row.claim for row in tickets if row.claim}
    for each in asked:
        row = rows.get(each.ticket)
        if each.operation == JOIN and each.problem == ALREADY_CLAIMED:
            if claims.get((each.coupon, each.user)) != each.claim:
                found.append(Violation(LOST, f"{_call(each)} was told of claim {each.claim}, which no ticket has"))
        elif each.status == 404:
            found.append(Violation(LOST, f"{_call(each)} was told that ticket {each.ticket} is not known"))
        elif row is None:
            continue
        elif each.status == 204 and row.state != "left":
            found.append(Violation(REVIVED, f"{_call(each)} was told that it has left: {_name(row)} is {row.state}"))
        elif each.problem == TICKET_STARTED and row.state in ("waiting", "left"):
            found.append(
                Violation(REVIVED, f"{_call(each)} was told that it cannot leave: {_name(row)} is {row.state}")
            )
        elif each.state in _ENDS - {"dead"} and (each.state != row.state or each.claim not in ("", row.claim)):
            told = f"{each.state} {each.claim}".rstrip()
            found.append(Violation(REVIVED, f"{_call(each)} was told {told}, and {_name(row)} is {row.state}"))
    return found


def check_reads(asked: Iterable[Invocation]) -> list[Violation]:
    """I15: of two answers one after the other, from whatever instances, the later one has no greater position."""
    answers: defaultdict[str, list[Invocation]] = defaultdict(list)
    for each in asked:
        if each.ticket and each.state:
            answers[each.ticket].append(each)
    return [violation for each in answers.values() for violation in _check_reads_of_one(each)]


def _check_reads_of_one(answers: Sequence[Invocation]) -> list[Violation]:
    if len(answers) < 2:
        return []
    found = []
    ended = sorted(answers, key=lambda each: each.end)
    moments = [each.end for each in ended]
    furthest: list[tuple[int, int]] = []  # the stage and the place that were seen by each of these moments
    for each in ended:
        furthest.append(max(furthest[-1], _progress(each)) if furthest else _progress(each))
    for each in answers:
        before = bisect_left(moments, each.start)
        if before and _progress(each) < furthest[before - 1]:
            stage, place = furthest[before - 1]
            found.append(
                Violation(
                    PLACE_GREW,
                    f"{_call(each)} was told {each.state} at {each.position} after stage {stage} at {-place} of"
                    f" ticket {each.ticket}",
                )
            )
    return found


def _progress(each: Invocation) -> tuple[int, int]:
    """How far a ticket was, as an answer told it; more is further."""
    stage = _STAGES.get(each.state, _LAST_STAGE)
    return stage, -each.position if stage == 0 else 0


def check_changes(changes: Iterable[Change]) -> list[Violation]:
    """I7: in everything that was committed, no ticket went back, and none changed once it had ended."""
    found = []
    states: dict[str, str] = {}
    for each in changes:
        before = states.get(each.ticket, "")
        if each.state not in _NEXT.get(before, ()):
            kind = LOST if not each.state else REVIVED
            found.append(
                Violation(kind, f"ticket {each.ticket} became {each.state or 'nothing'} after {before or 'nothing'}")
            )
        states[each.ticket] = each.state
    return found


def check_queue(name: str, queue: QueueRow, changes: Sequence[Change]) -> list[Violation]:
    """I14 and I15 of one queue: how fast, how many at once, and how long it was."""
    found = []
    leases = _leases(changes)
    starts = sorted(begin for begin, _ in leases)
    windows = zip(starts, starts[queue.rate_per_second :], strict=False)
    broken = [(later - earlier, later) for earlier, later in windows if later - earlier < _SECOND]
    if broken:
        shortest, when = min(broken)
        text = f"{name}: {queue.rate_per_second + 1} starts in {shortest.total_seconds():.6f} s at {when:%H:%M:%S.%f}"
        found.append(Violation(TOO_FAST, f"{text}; {len(broken)} such windows", len(broken)))
    under_way = _most(leases)
    if under_way > queue.concurrency:
        found.append(Violation(TOO_MANY_AT_ONCE, f"{name}: {under_way} claims under way, not {queue.concurrency}"))
    longest = _longest(changes)
    if longest > queue.max_length:
        found.append(Violation(TOO_LONG, f"{name}: {longest} waited, not {queue.max_length}"))
    return found


def _leases(changes: Sequence[Change]) -> list[tuple[datetime, datetime]]:
    """From when to when each lease was: until it was ended or given up, or its time was over."""
    of_ticket: defaultdict[str, list[Change]] = defaultdict(list)
    for each in changes:
        of_ticket[each.ticket].append(each)
    found = []
    for life in of_ticket.values():
        begin: datetime | None = None
        until = NEVER
        for before, each in pairwise([Change("", "", ""), *life]):
            if begin is not None and (each.lease != before.lease or each.state != "started"):
                found.append((begin, min(until, _begin(each) or each.ended_at or each.at)))
                begin = None
            if (leased_at := _begin(each)) is not None:
                begin = leased_at if begin is None else begin
                until = leased_at + _LEASE
        if begin is not None:
            found.append((begin, until))
    return found


def _begin(change: Change) -> datetime | None:
    """When the lease that a change tells of was given or renewed."""
    if change.state != "started" or not change.lease or change.leased_until is None:
        return None
    return change.leased_until - _LEASE


def _most(spans: Iterable[tuple[datetime, datetime]]) -> int:
    """How many of them were there at once. One that ends when another begins is over."""
    most = now = 0
    for _, change in sorted(event for begin, end in spans for event in ((begin, 1), (max(begin, end), -1))):
        now += change
        most = max(most, now)
    return most


def _longest(changes: Iterable[Change]) -> int:
    """How many waited at most. The queue's lock has put joins, starts and leaves into one order."""
    longest = now = 0
    waiting: set[str] = set()
    for each in changes:
        if each.state == "waiting":
            waiting.add(each.ticket)
            now += 1
            longest = max(longest, now)
        elif each.ticket in waiting:
            waiting.discard(each.ticket)
            now -= 1
    return longest


def starts(changes: Iterable[Change]) -> list[datetime]:
    """When claims of tickets were begun, retries included."""
    return sorted(begin for of_one in by_queue(changes).values() for begin, _ in _leases(of_one))


def resumed_seconds(changes: Iterable[Change], since: datetime) -> float:
    """How long after a moment the first ticket was claimed that was started after it."""
    begun: set[str] = set()
    for each in changes:
        if (leased_at := _begin(each)) is not None and leased_at >= since:
            begun.add(each.ticket)
        if each.state == "claimed" and each.ticket in begun:
            return ((each.ended_at or each.at) - since).total_seconds()
    return float("inf")


def _name(row: TicketRow) -> str:
    return f"ticket {row.id} ({row.user} of {row.coupon})"


def _owner(row: ClaimRow | None) -> str:
    return "is not there" if row is None else f"is {row.user}'s of {row.coupon}"


def _call(each: Invocation) -> str:
    return f"{each.process} ({each.operation} {each.id}, {each.user} of {each.coupon}, at {each.instance})"
