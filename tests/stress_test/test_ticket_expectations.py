"""Every expectation of queues holds for an honest history and names each way of breaking it."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import pytest

from stress_test.draw_expectations import DRAW_EXPECTATIONS, entry_of, recomputed
from stress_test.history import (
    QUEUE_FULL,
    QUEUED,
    SOLD_OUT,
    Attempt,
    ClaimSeen,
    CouponPlan,
    CouponState,
    History,
    QueuePlan,
    TicketSeen,
)
from stress_test.ticket_expectations import QUEUE_EXPECTATIONS, judge_queue
from stress_test.tickets import DrawHistory, DrawSeen, QueueCase, Steps, TicketHistory

COUPON = "queue-1"
OPENING = datetime(2026, 1, 1, tzinfo=UTC)
QUEUE = QueuePlan(rate_per_second=2, concurrency=2, max_wait_seconds=5, max_length=3)
SEED = bytes(range(32)).hex()


def at(seconds: float) -> datetime:
    return OPENING + timedelta(seconds=seconds)


def a_ticket(number: int, joined: float, started: float, ended: float) -> TicketSeen:
    user = f"user-{number}"
    claim = ClaimSeen(f"claim-{number}", COUPON, user, at(ended))
    return TicketSeen(f"ticket-{number}", COUPON, user, "claimed", None, at(joined), at(started), at(ended), claim)


def expired(ticket: TicketSeen, seconds: float) -> TicketSeen:
    return replace(ticket, state="expired", started_at=None, claim=None, ended_at=at(seconds))


def a_case(
    *tickets: TicketSeen,
    refused: str | None = QUEUE_FULL,
    amount: int = 3,
    places: tuple[int | None, ...] = (1, 2, 3),
    refused_after: float = 0.3,
    queue: QueuePlan = QUEUE,
    **more: Any,
) -> QueueCase:
    """All asked at once; the tickets joined, and one more was refused."""
    answered = [
        replace(each, state="waiting", position=place, started_at=None, ended_at=None, claim=None, problem=None)
        for each, place in zip(tickets, places, strict=False)
    ]
    attempts = [
        Attempt(each.user_id, COUPON, 0.0, (each.joined_at - OPENING).total_seconds() + 0.05, QUEUED, ticket=each)
        for each in answered
    ]
    if refused is not None:
        attempts.append(Attempt("late", COUPON, 0.0, refused_after, refused))
    claims = tuple(sorted((each.claim for each in tickets if each.claim), key=lambda claim: claim.claimed_at))
    state = CouponState(amount, amount - len(claims), tuple(each.user_id for each in claims), claims, {})
    history = TicketHistory(
        {each.id: (first, each) for first, each in zip(answered, tickets, strict=True)},
        {each.id: each for each in tickets},
        tuple(replace(each, claim=None, position=None, problem=None) for each in tickets),
        {each.id: 1 for each in tickets},
        **more,
    )
    return QueueCase(History(CouponPlan(COUPON, amount, None, queue), tuple(attempts)), queue, history, state, 1.0)


# Two of three are started at once, as the pace and the concurrency allow; the third a second later.
ONE, TWO, THREE = a_ticket(1, 0.1, 0.2, 0.4), a_ticket(2, 0.1, 0.2, 0.3), a_ticket(3, 0.15, 1.2, 1.3)
HONEST = a_case(ONE, TWO, THREE)


def early(number: int, started: float) -> TicketSeen:
    return a_ticket(number, -1.0 + number / 100, started, started + 0.1)


def a_drawn_case(**changes: Any) -> QueueCase:
    """Three are drawn, and one joins after the start. They are read while only the first of those drawn is started."""
    ids = {entry_of(f"ticket-{number}"): number for number in (1, 2, 3)}
    entries = recomputed(SEED, ids)
    starts = {ids[entry]: 0.2 + 1.0 * nth for nth, entry in enumerate(entries)}
    tickets = [early(number, starts[number]) for number in (1, 2, 3)] + [a_ticket(4, 0.1, 3.2, 3.3)]
    places = tuple(
        replace(each, state="waiting", position=entries.index(entry_of(each.id)) if number < 4 else 3)
        for number, each in enumerate(tickets, 1)
        if number == 4 or entries.index(entry_of(each.id)) > 0
    )
    digest = sha256(bytes.fromhex(SEED)).hexdigest()
    draw = DrawHistory(DrawSeen(digest, None, ()), DrawSeen(digest, SEED, tuple(entries)), places)
    case = a_case(
        *tickets,
        refused=None,
        amount=4,
        places=(None, None, None, 4),
        queue=replace(QUEUE, order="draw", max_length=9),
        starts_at=at(0),
        draw=replace(draw, **changes),
    )
    # The requests of the early ones were sent before the start.
    attempts = tuple(replace(each, started_seconds=each.started_seconds - 1.5) for each in case.history.attempts)
    return replace(case, history=replace(case.history, attempts=attempts))


DRAWN = a_drawn_case()


def violated(case: QueueCase) -> dict[str, str]:
    return {violation.expectation: violation.sentence for violation in judge_queue(case)}


def with_tickets(case: QueueCase, **changes: Any) -> QueueCase:
    return replace(case, tickets=replace(case.tickets, **changes))


def told_again(case: QueueCase, change: Callable[[TicketSeen], TicketSeen]) -> QueueCase:
    """The first ticket was read once more after its answer, differently."""
    readings = dict(case.tickets.readings)
    first, last = readings["ticket-1"]
    readings["ticket-1"] = (first, change(first), last)
    return with_tickets(case, readings=readings)


def test_honest_histories_violate_nothing() -> None:
    assert (judge_queue(HONEST), judge_queue(DRAWN)) == ([], [])


def test_every_expectation_is_shown_to_detect_something() -> None:
    names = {each.__name__.replace("_", "-") for each in (*QUEUE_EXPECTATIONS, *DRAW_EXPECTATIONS)}
    assert names == {str(case.values[0]) for case in BROKEN}


def _rejoined() -> QueueCase:
    """A user was told of two tickets."""
    return a_case(ONE, TWO, replace(THREE, user_id="user-1", claim=None))


BROKEN = [
    pytest.param("only-queue-answers", a_case(ONE, TWO, THREE, refused="409 no-luck"), "1 x 409 no-luck", id="a 409"),
    pytest.param("only-queue-answers", a_case(ONE, TWO, THREE, refused="201"), "1 x 201", id="decided at once"),
    pytest.param("one-ticket-per-user", _rejoined(), "users with more than one ticket (1): user-1", id="two tickets"),
    pytest.param(
        "tickets-are-those-told",
        with_tickets(HONEST, listed=HONEST.tickets.listed[1:]),
        "tickets that are not listed: 1",
        id="a ticket is lost",
    ),
    pytest.param(
        "tickets-are-those-told",
        with_tickets(HONEST, listed=(*HONEST.tickets.listed, replace(a_ticket(9, 2, 2.3, 2.4), user_id="late"))),
        "that nobody was told of (1): late",
        id="who was refused has a ticket",
    ),
    pytest.param(
        "never-more-wait-than-allowed",
        a_case(ONE, TWO, THREE, queue=replace(QUEUE, max_length=1)),
        "3 waited at once, allowed: 1",
        id="the queue is too long",
    ),
    pytest.param(
        "nobody-waits-for-units-that-are-not-there",
        a_case(ONE, TWO, THREE, amount=2),
        "3 waited for, or had got, one of 2 units when user-3 joined",
        id="more wait than there are units",
    ),
    pytest.param(
        "as-many-join-as-may", a_case(ONE, TWO), "tickets: 2, but there were places and units for 3", id="one too few"
    ),
    pytest.param(
        "refusals-were-due",
        a_case(ONE, TWO, THREE, refused_after=0.01),
        "refused while there were places and units (1): late",
        id="refused before the queue was full",
    ),
    pytest.param(
        "refusals-were-due",
        a_case(ONE, TWO, THREE, refused=SOLD_OUT),
        "refused while there were places and units (1): late",
        id="sold out before all had claimed",
    ),
    pytest.param("refusals-were-due", a_case(), "refused, and nobody waited (1): late", id="refused by an empty queue"),
    pytest.param(
        "places-are-as-they-joined", a_case(ONE, TWO, THREE, places=(1, 2, 2)), "(1): user-3", id="a place twice"
    ),
    pytest.param(
        "places-are-as-they-joined", a_case(ONE, TWO, THREE, places=(1, 3, 3)), "(2): user-1, user-2", id="a gap"
    ),
    pytest.param(
        "places-never-grow",
        told_again(HONEST, lambda first: replace(first, position=2)),
        "tickets whose place grew, or is there without its state (1): user-1",
        id="a place grows",
    ),
    pytest.param(
        "places-never-grow",
        told_again(HONEST, lambda first: replace(first, state="started", position=1)),
        "(1): user-1",
        id="a started ticket waits",
    ),
    pytest.param(
        "starts-are-in-order",
        a_case(a_ticket(1, 0.1, 1.3, 1.4), a_ticket(2, 0.11, 0.2, 0.3), a_ticket(3, 0.12, 0.2, 0.3)),
        "overtaken by 2 or more (1): user-1",
        id="the first is last",
    ),
    pytest.param(
        "pace-holds",
        a_case(ONE, TWO, a_ticket(3, 0.15, 1.19, 1.3)),
        "3 starts within a second, allowed: 2",
        id="a hundredth of a second too early",
    ),
    pytest.param(
        "concurrency-holds",
        a_case(a_ticket(1, 0.1, 0.2, 1.3), a_ticket(2, 0.1, 0.2, 1.3), THREE),
        "3 claims under way at once, allowed: 2",
        id="three at once",
    ),
    pytest.param(
        "every-ticket-ends",
        a_case(ONE, TWO, replace(THREE, state="started", ended_at=None, claim=None, position=0)),
        "tickets that have not ended (1): user-3",
        id="one is still started",
    ),
    pytest.param(
        "every-ticket-ends",
        with_tickets(HONEST, again={**HONEST.tickets.again, "ticket-1": replace(ONE, ended_at=at(2))}),
        "tickets whose end was changed (1): user-1",
        id="an end is written again",
    ),
    pytest.param(
        "every-ticket-ends", with_tickets(HONEST, again={}), "was changed (3)", id="ends that cannot be read again"
    ),
    pytest.param(
        "every-ticket-ends",
        a_case(ONE, TWO, replace(THREE, state="dead", claim=None)),
        "gave up (1): user-3",
        id="a dead letter",
    ),
    pytest.param(
        "ends-are-complete", a_case(ONE, TWO, replace(THREE, claim=None)), "(1): user-3", id="claimed without a claim"
    ),
    pytest.param(
        "ends-are-complete",
        a_case(ONE, TWO, replace(expired(THREE, 5.2), started_at=at(1.2))),
        "(1): user-3",
        id="expired, and started",
    ),
    pytest.param(
        "ends-are-complete",
        a_case(ONE, TWO, replace(THREE, ended_at=at(1.1))),
        "(1): user-3",
        id="ended before its start",
    ),
    pytest.param(
        "waits-are-bounded",
        a_case(ONE, TWO, a_ticket(3, 0.15, 5.2, 5.3)),
        "tickets that ended too early or too late (1): user-3",
        id="started too late",
    ),
    pytest.param("waits-are-bounded", a_case(ONE, TWO, expired(THREE, 5.1)), "(1): user-3", id="expired too early"),
    pytest.param("waits-are-bounded", a_case(ONE, TWO, expired(THREE, 6.2)), "(1): user-3", id="expired too late"),
    pytest.param(
        "claimed-tickets-are-the-claims",
        replace(HONEST, state=replace(HONEST.state, claims=HONEST.state.claims[1:])),
        "tickets claimed: 3, claims recorded: 2, units: 3; differing: user-2",
        id="a claim is missing",
    ),
    pytest.param(
        "claimed-tickets-are-the-claims",
        a_case(ONE, TWO, replace(expired(THREE, 5.2), claim=THREE.claim)),
        "tickets claimed: 2, claims recorded: 3, units: 3; differing: user-3",
        id="who expired has a claim",
    ),
    pytest.param(
        "units-are-given",
        a_case(ONE, TWO, expired(THREE, 5.2)),
        "claimed: 2, though there were units and time for 3",
        id="expired in vain",
    ),
    pytest.param(
        "units-are-given",
        a_case(ONE, TWO, replace(THREE, state="refused", claim=None, problem="sold-out")),
        "claimed: 2 of 3 units, yet refused (1): user-3",
        id="refused a unit that is left",
    ),
    pytest.param(
        "seed-was-promised",
        a_drawn_case(before=DrawSeen("0" * 64, None, ())),
        "the seed's digest was 000",
        id="another digest",
    ),
    pytest.param(
        "seed-was-promised",
        a_drawn_case(before=DrawSeen(sha256(bytes.fromhex(SEED)).hexdigest(), SEED, ())),
        "published before the start",
        id="the seed is told too early",
    ),
    pytest.param(
        "seed-was-promised",
        a_drawn_case(before=DrawSeen("0" * 64, None, ()), after=DrawSeen("0" * 64, SEED, ())),
        "is not the one of the digest",
        id="a seed that was not promised",
    ),
    pytest.param(
        "seed-was-promised", a_drawn_case(after=DrawSeen("0" * 64, None, ())), "no seed was published", id="no seed"
    ),
    pytest.param(
        "entries-are-the-early",
        a_drawn_case(after=replace(DRAWN.tickets.draw.after, entries=DRAWN.tickets.draw.after.entries[1:])),  # type: ignore[union-attr]
        "entries: 2, joined before the start: 3",
        id="one was not drawn",
    ),
    pytest.param(
        "entries-are-the-early",
        a_drawn_case(after=replace(DRAWN.tickets.draw.after, entries=DRAWN.tickets.draw.after.entries[::-1])),  # type: ignore[union-attr]
        "not the one that the seed draws",
        id="another order",
    ),
    pytest.param(
        "places-are-as-drawn",
        a_drawn_case(places=tuple(replace(each, position=1) for each in DRAWN.tickets.draw.places)),  # type: ignore[union-attr]
        "not at the place that was drawn, or behind those drawn (2)",
        id="all are first",
    ),
    pytest.param(
        "places-are-as-drawn",
        with_tickets(
            DRAWN,
            readings={
                id_: tuple(replace(each, position=each.position or 1) for each in readings[:1])
                for id_, readings in DRAWN.tickets.readings.items()
            },
        ),
        "told a place before the draw (3)",
        id="places before the draw",
    ),
]


@pytest.mark.parametrize(("expectation", "case", "words"), BROKEN)
def test_a_broken_history_is_named(expectation: str, case: QueueCase, words: str) -> None:
    assert words in violated(case).get(expectation, ""), violated(case)


def test_who_is_tried_again_is_not_under_way_meanwhile() -> None:
    case = a_case(a_ticket(1, 0.1, 0.2, 1.3), a_ticket(2, 0.1, 0.2, 1.3), THREE)
    assert "concurrency-holds" not in violated(with_tickets(case, tries={"ticket-1": 2}))


def test_who_expires_for_want_of_time_violates_nothing() -> None:
    slow = replace(QUEUE, rate_per_second=1, max_wait_seconds=1)
    case = a_case(
        a_ticket(1, 0.1, 0.2, 0.3), expired(a_ticket(2, 0.11, 0, 0), 1.2), a_ticket(3, 0.4, 1.2, 1.3), queue=slow
    )
    assert violated(case).keys() <= {"refusals-were-due", "places-are-as-they-joined"}


def test_what_happens_at_one_moment_lowers_a_number_before_it_raises_it() -> None:
    steps = Steps([(at(0), 1), (at(0), 1), (at(1), -1), (at(1), 2), (at(2), -3)])
    assert (steps.most, [steps.before(at(moment)) for moment in (0, 1, 1.5, 2, 3)]) == (3, [0, 1, 3, 0, 0])
    start = OPENING.timestamp()
    assert steps.reached(3, start + 1.5, start + 1.6)
    assert not steps.reached(3, start + 0.1, start + 0.9)
    assert steps.reached(2, start - 5, start)
    assert not steps.reached(4, start - 5, start + 5)
