"""What is wrong, by the history and the database: pure functions, each a list of violations, empty if all is well.

Claims are never cancelled yet, so a coupon's claims only grow in number. That makes the interval check simple: for
each row of the database there is an interval in which it was committed, and an answer was possible if there is a
moment of its call, and a moment of each row's interval, that agree with it.
"""

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tests.support.cluster_state import ClaimRow, Quiet, Snapshot
from tests.support.history import (
    ALREADY_CLAIMED,
    CLAIM,
    JOIN,
    LEAVE,
    LOCK_BUSY,
    POLL,
    QUEUE_FULL,
    READ,
    SOLD_OUT,
    TICKET_STARTED,
    UNAVAILABLE,
    Invocation,
)

LOST = "lost"
PHANTOM = "phantom"
DUPLICATE = "duplicate"
OVERSOLD = "oversold"
FALSELY_REFUSED = "falsely refused"
IMPOSSIBLE_READ = "impossible read"
MISCOUNTED = "miscounted"
WRONG_ANSWER = "wrong answer"
NOT_QUIET = "not quiet"
NOT_RECOVERED = "not recovered"
UNEXPECTED = "unexpected"

ABOUT_TIME = frozenset({NOT_QUIET, NOT_RECOVERED, UNEXPECTED})
"""What may also be seen where other work keeps everything waiting."""

_MOST_CLAIMANTS = 1000  # that a read of a coupon shows
_NEVER = 1 << 62
# Ends after which nothing can have been written: `lock-busy` promises it, and a request that was not read did nothing.
_NOTHING_WRITTEN = (LOCK_BUSY, "refused", "closed-unread")


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that must not be. `kind` is one of the words above, `count` how many units or claims it is about."""

    kind: str
    text: str
    count: int = 1

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


def check_all(invocations: Sequence[Invocation], snapshot: Snapshot, queued: Collection[str] = ()) -> list[Violation]:
    """The set check, the interval check, and what every answer must be.

    The claims of `queued` coupons are those of tickets, which `ticket_checks` checks.
    """
    others = Snapshot(snapshot.coupons, [row for row in snapshot.claims if row.coupon not in queued])
    return [
        *check_database(snapshot),
        *check_sets(invocations, others),
        *check_intervals(invocations, snapshot),
        *check_answers(invocations),
    ]


def check_database(snapshot: Snapshot) -> list[Violation]:
    """I1, I2 and I3: the rows by themselves."""
    found = []
    active = Counter(row.coupon for row in snapshot.claims)
    for coupon in snapshot.coupons.values():
        sold = active[coupon.name]
        if sold > coupon.amount:
            found.append(Violation(OVERSOLD, f"{coupon.name}: {sold} claims of {coupon.amount}", sold - coupon.amount))
        if coupon.remaining != coupon.amount - sold:
            found.append(
                Violation(
                    MISCOUNTED, f"{coupon.name}: {coupon.remaining} remain of {coupon.amount} after {sold} claims"
                )
            )
    for (name, user), times in Counter((row.coupon, row.user) for row in snapshot.claims).items():
        if times > 1:
            found.append(Violation(DUPLICATE, f"{user} holds {times} claims of {name}", times - 1))
    for claim, times in Counter(row.id for row in snapshot.claims).items():
        if times > 1:
            found.append(Violation(DUPLICATE, f"the id {claim} is that of {times} claims", times - 1))
    return found


def check_sets(invocations: Sequence[Invocation], snapshot: Snapshot) -> list[Violation]:
    """Every claim that was told of is there (I4), every row was asked for (I5), and nobody was told of two (I3)."""
    found = []
    rows = {row.id: row for row in snapshot.claims}
    told: dict[str, set[str]] = defaultdict(set)  # the users' keys, by the id that they were told
    made: Counter[str] = Counter()
    may_have_made: set[str] = set()
    for each in invocations:
        if each.operation != CLAIM:
            continue
        key = _key(each.coupon, each.user)
        if each.claim:
            told[each.claim].add(key)
        if each.is_acknowledged:
            made[each.claim] += 1
        elif _may_have_written(each):
            may_have_made.add(key)
    for claim, keys in told.items():
        row = rows.get(claim)
        for key in keys:
            if row is None:
                found.append(Violation(LOST, f"{key} was told of claim {claim or 'without an id'}, which is not there"))
            elif _key(row.coupon, row.user) != key:
                found.append(Violation(LOST, f"{key} was told of claim {claim}, which is {row.user}'s"))
    for claim, times in made.items():
        if times > 1:
            found.append(Violation(DUPLICATE, f"claim {claim} was answered 201 {times} times", times - 1))
    holders: dict[str, set[str]] = defaultdict(set)
    for claim, keys in told.items():
        for key in keys:
            holders[key].add(claim)
    for key, claims in holders.items():
        if len(claims) > 1:
            found.append(Violation(DUPLICATE, f"{key} was told of {len(claims)} claims", len(claims) - 1))
    found += [
        Violation(PHANTOM, f"{row.user} holds claim {row.id} of {row.coupon} that no request made")
        for row in snapshot.claims
        if row.id not in made and _key(row.coupon, row.user) not in may_have_made
    ]
    return found


def check_intervals(invocations: Sequence[Invocation], snapshot: Snapshot) -> list[Violation]:
    """I9: `sold-out`, `already-claimed` and what was read were true at some moment of the call."""
    asked: dict[str, list[Invocation]] = defaultdict(list)
    for each in invocations:
        asked[each.coupon].append(each)
    rows: dict[str, list[ClaimRow]] = defaultdict(list)
    for row in snapshot.claims:
        rows[row.coupon].append(row)
    found: list[Violation] = []
    for name, coupon in snapshot.coupons.items():
        found += _check_coupon(asked[name], rows[name], coupon.amount)
    return found


def _check_coupon(asked: Sequence[Invocation], rows: Sequence[ClaimRow], amount: int) -> list[Violation]:
    earliest, latest = _commit_intervals(asked, rows)
    begun, ended = sorted(earliest.values()), sorted(latest.values())
    holder = {row.user: row.id for row in rows}
    found = []
    lowest_read, reads = amount, sorted((each for each in asked if each.operation == READ), key=lambda each: each.end)
    for each in asked:
        if each.operation != CLAIM or each.status != 409:
            continue
        if each.problem == SOLD_OUT:
            sold = bisect_right(begun, each.end)
            if sold < amount:
                found.append(
                    Violation(
                        FALSELY_REFUSED, f"{_call(each)} was told sold-out while at most {sold} of {amount} were sold"
                    )
                )
            if each.user in holder and latest[holder[each.user]] < each.start:
                found.append(Violation(FALSELY_REFUSED, f"{_call(each)} was told sold-out while holding a claim"))
        elif each.problem == ALREADY_CLAIMED and earliest.get(each.claim, _NEVER) > each.end:
            found.append(Violation(FALSELY_REFUSED, f"{_call(each)} was told of a claim that was not made yet"))
    seen: list[tuple[int, int]] = []  # the ends of reads and the lowest count that was read by then
    for each in reads:
        if each.status != 200:
            continue
        found += _check_read(each, amount, (bisect_left(ended, each.start), bisect_right(begun, each.end)))
        before = bisect_left(seen, (each.start, -1))
        if before and each.remaining > seen[before - 1][1]:
            found.append(
                Violation(
                    IMPOSSIBLE_READ, f"{_call(each)} read {each.remaining} after {seen[before - 1][1]} had been read"
                )
            )
        lowest_read = min(lowest_read, each.remaining)
        seen.append((each.end, lowest_read))
    return found


def _check_read(read: Invocation, amount: int, sold: tuple[int, int]) -> list[Violation]:
    """One read, given how many claims were made for certain before it, and how many at most by its end."""
    found = []
    told = amount - read.remaining
    if not sold[0] <= told <= sold[1]:
        found.append(
            Violation(
                IMPOSSIBLE_READ,
                f"{_call(read)} read {read.remaining} of {amount}, while {sold[0]} to {sold[1]} were sold",
            )
        )
    if read.claimants != min(told, _MOST_CLAIMANTS):
        found.append(
            Violation(IMPOSSIBLE_READ, f"{_call(read)} read {read.claimants} claimants, but {told} units gone")
        )
    return found


def _commit_intervals(asked: Iterable[Invocation], rows: Iterable[ClaimRow]) -> tuple[dict[str, int], dict[str, int]]:
    """By claim: the earliest and the latest moment at which it can have been committed.

    Not before the request began that was told 201; or, if none was, the first of the user's that may have made it.
    Not after the first answer that told of it; without one, at any time.
    """
    maker: dict[str, int] = {}
    first_attempt: dict[str, int] = {}
    latest: dict[str, int] = {}
    for each in asked:
        if each.operation != CLAIM:
            continue
        if each.claim:
            latest[each.claim] = min(latest.get(each.claim, _NEVER), each.end)
        if each.is_acknowledged:
            maker[each.claim] = min(maker.get(each.claim, _NEVER), each.start)
        elif _may_have_written(each):
            first_attempt[each.user] = min(first_attempt.get(each.user, _NEVER), each.start)
    earliest = {}
    for row in rows:
        earliest[row.id] = maker.get(row.id, first_attempt.get(row.user, 0))
        latest.setdefault(row.id, _NEVER)
    return earliest, {row: latest[row] for row in earliest}


def check_answers(invocations: Iterable[Invocation]) -> list[Violation]:
    """Every answer is one of those that the API promises, and every 503 says when to come again."""
    odd: Counter[str] = Counter()
    allowed = {
        (CLAIM, 201, ""),
        (CLAIM, 409, SOLD_OUT),
        (CLAIM, 409, ALREADY_CLAIMED),
        (CLAIM, 503, LOCK_BUSY),
        (CLAIM, 503, UNAVAILABLE),
        (READ, 200, ""),
        (READ, 503, UNAVAILABLE),
        (JOIN, 202, ""),
        (JOIN, 409, SOLD_OUT),
        (JOIN, 409, ALREADY_CLAIMED),
        (JOIN, 429, QUEUE_FULL),
        (JOIN, 503, UNAVAILABLE),
        (POLL, 200, ""),
        (POLL, 503, UNAVAILABLE),
        (LEAVE, 204, ""),
        (LEAVE, 409, TICKET_STARTED),
        (LEAVE, 503, UNAVAILABLE),
    }
    for each in invocations:
        if each.problem == "garbled":
            odd[f"{each.operation} got something that is not HTTP"] += 1
        elif each.status and (each.operation, each.status, each.problem) not in allowed:
            odd[f"{each.operation} got {each.status} {each.problem}"] += 1
        elif each.status == 503 and not each.has_retry_after:
            odd[f"{each.operation} got 503 {each.problem} without Retry-After"] += 1
    return [Violation(WRONG_ANSWER, f"{text} ({times} times)", times) for text, times in odd.items()]


def check_quiet(quiet: Quiet) -> list[Violation]:
    """I12: once quiet, no lock is held, no transaction open, no connection borrowed, and nobody waits."""
    return [
        *(Violation(NOT_QUIET, f"{lock} is still held") for lock in quiet.locks),
        *(Violation(NOT_QUIET, transaction) for transaction in quiet.transactions),
        *(Violation(NOT_QUIET, f"{name} is {value:g}") for name, value in quiet.gauges.items() if value),
    ]


def check_recovery(invocations: Iterable[Invocation], healed_at: int, within_seconds: float) -> list[Violation]:
    """I13: a claim that was begun after healing succeeded within that time."""
    ends = [each.end for each in invocations if each.is_acknowledged and each.start >= healed_at]
    seconds = (min(ends) - healed_at) / 1e9 if ends else float("inf")
    if seconds <= within_seconds:
        return []
    return [Violation(NOT_RECOVERED, f"the first claim after healing succeeded after {seconds:.1f} s")]


def longest_gap_seconds(invocations: Iterable[Invocation], begin: int, end: int) -> float:
    """The longest stretch of that time (monotonic ns) in which no claim was decided."""
    moments = sorted(each.end for each in invocations if each.is_definite and begin <= each.end <= end)
    edges = [begin, *moments, end]
    return max((later - earlier for earlier, later in pairwise(edges)), default=0) / 1e9


def resumed_after_seconds(invocations: Iterable[Invocation], coupon: str, since: int, without: str) -> float:
    """How long after that moment (monotonic ns) an instance other than `without` made a claim of the coupon."""
    ends = [
        each.end
        for each in invocations
        if each.is_acknowledged and each.coupon == coupon and each.instance != without and each.start >= since
    ]
    return (min(ends) - since) / 1e9 if ends else float("inf")


def _may_have_written(each: Invocation) -> bool:
    return each.is_unknown and each.problem not in _NOTHING_WRITTEN


def _key(coupon: str, user: str) -> str:
    return f"{user} of {coupon}"


def _call(each: Invocation) -> str:
    return f"{each.process} ({each.operation} {each.id}, {each.user or 'a reader'} of {each.coupon})"
