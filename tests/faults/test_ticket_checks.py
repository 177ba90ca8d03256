"""The checks of tickets by themselves: each kind of wrong history goes red, and a right one does not."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from claimsvc.domain import MOST_TRIES
from claimsvc.tickets.dispatching import LEASE_SECONDS
from tests.faults.checks import DUPLICATE, FALSELY_REFUSED, LOST, PHANTOM
from tests.faults.ticket_checks import (
    NOT_ENDED,
    PLACE_GREW,
    REVIVED,
    TOO_FAST,
    TOO_LONG,
    TOO_MANY_AT_ONCE,
    TRIED_FOR_EVER,
    check_tickets,
    resumed_seconds,
    starts,
)
from tests.support.cluster_state import ClaimRow
from tests.support.history import JOIN, LEAVE, POLL, Invocation
from tests.support.ticket_log import Change, QueueRow, TicketRow, Tickets

_AT = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return _AT + timedelta(seconds=seconds)


@dataclass
class World:
    """A history, the tickets and their changes, put together by hand. Moments of the history are small numbers."""

    queue: QueueRow = field(default_factory=lambda: QueueRow(rate_per_second=2, concurrency=2, max_length=2))
    asked: list[Invocation] = field(default_factory=list)
    rows: dict[str, TicketRow] = field(default_factory=dict)
    claims: list[ClaimRow] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)

    def ask(
        self,
        operation: str,
        user: str,
        start: int,
        end: int,
        status: int,
        problem: str = "",
        claim: str = "",
        state: str = "",
        position: int = -1,
    ) -> None:
        self.asked.append(
            Invocation(
                len(self.asked) + 1, "c", operation, "spring", user, "one", start, end, status, problem, claim,
                has_retry_after=True, ticket=f"ticket-{user}", state=state, position=position,
            )
        )  # fmt: skip

    def joined(self, user: str, start: int = 1, end: int = 2, position: int = 1) -> None:
        self.ask(JOIN, user, start, end, 202, state="waiting", position=position)

    def polled(self, user: str, start: int, end: int, state: str, position: int = -1, claim: str = "") -> None:
        self.ask(POLL, user, start, end, 200, claim=claim, state=state, position=position)

    def change(self, user: str, state: str, lease: str = "", since: float = 0.0, until: float | None = None) -> None:
        """A change; a lease is given at `since`, and ends at `until`, or LEASE_SECONDS later."""
        leased_until = (
            None if state != "started" or not lease else at(since + LEASE_SECONDS if until is None else until)
        )
        ended_at = at(since) if state not in ("waiting", "started", "") else None
        self.changes.append(Change("spring", f"ticket-{user}", state, lease, leased_until, ended_at, at(since)))

    def row(self, user: str, state: str, claim: str = "", tries: int = 1) -> None:
        self.rows[user] = TicketRow(f"ticket-{user}", "spring", user, state, tries, claim)

    def claimed(self, user: str, start: float = 1.0, end: float = 2.0) -> None:
        """A ticket that waited, was started and claimed."""
        self.change(user, "waiting")
        self.change(user, "started", f"lease-{user}", start)
        self.change(user, "claimed", f"lease-{user}", end)
        self.row(user, "claimed", f"claim-{user}")
        self.claims.append(ClaimRow(f"claim-{user}", "spring", user))

    def kinds(self) -> set[str]:
        found = Tickets(list(self.rows.values()), {"spring": self.queue}, self.changes)
        return {violation.kind for violation in check_tickets(self.asked, self.claims, found)}


def test_a_right_history_is_right() -> None:
    world = World()
    world.joined("ada", 1, 2, position=1)
    world.joined("ben", 1, 2, position=2)
    world.polled("ben", 3, 4, "waiting", 2)
    world.polled("ben", 5, 6, "started", 0)
    world.polled("ben", 7, 8, "claimed", claim="claim-ben")
    world.ask(JOIN, "ben", 9, 10, 409, "already-claimed", "claim-ben")
    world.ask(JOIN, "cleo", 1, 2, 0, "timeout")
    world.ask(LEAVE, "cleo", 3, 4, 204)
    world.claimed("ada")
    world.claimed("ben")
    world.change("cleo", "waiting")
    world.change("cleo", "left")
    world.row("cleo", "left")
    assert world.kinds() == set()


def test_a_ticket_that_somebody_was_told_of_and_is_not_there_is_lost() -> None:
    world = World()
    world.joined("ada")
    assert world.kinds() == {LOST}


def test_a_ticket_that_is_not_known_any_more_is_lost() -> None:
    world = World()
    world.joined("ada")
    world.claimed("ada")
    world.ask(POLL, "ada", 3, 4, 404, "unknown-ticket")
    assert world.kinds() == {LOST}


def test_a_ticket_that_was_deleted_is_lost() -> None:
    world = World()
    world.joined("ada")
    world.claimed("ada")
    world.change("ada", "")
    assert world.kinds() == {LOST}


def test_a_ticket_that_nobody_joined_is_a_phantom() -> None:
    world = World()
    world.ask(JOIN, "ada", 1, 2, 429, "queue-full")
    world.claimed("ada")
    assert world.kinds() == {PHANTOM}


def test_a_ticket_that_never_ended_is_seen() -> None:
    world = World()
    world.joined("ada")
    world.change("ada", "waiting")
    world.row("ada", "waiting")
    assert world.kinds() == {NOT_ENDED}


def test_a_claim_without_a_ticket_is_a_phantom() -> None:
    world = World()
    world.claims.append(ClaimRow("claim-1", "spring", "ada"))
    assert world.kinds() == {PHANTOM}


def test_a_claim_whose_ticket_ended_otherwise_is_a_phantom() -> None:
    world = World()
    world.joined("ada")
    world.claimed("ada")
    world.changes[-1] = Change("spring", "ticket-ada", "refused", ended_at=at(2), at=at(2))
    world.row("ada", "refused")
    assert world.kinds() == {PHANTOM, FALSELY_REFUSED}


@pytest.mark.parametrize(
    ("refusal", "is_right"), [("already-claimed", True), ("sold-out", False), ("paused", False), ("", False)]
)
def test_a_ticket_is_refused_for_what_is_true(refusal: str, is_right: bool) -> None:
    world = World()
    world.joined("ada")
    world.claimed("ada")
    # A second ticket of hers.
    again = [replace(each, ticket="ticket-2") for each in world.changes]
    world.changes += [*again[:2], replace(again[2], state="refused")]
    world.rows["again"] = TicketRow("ticket-2", "spring", "ada", "refused", 1, refusal=refusal)
    assert world.kinds() == (set() if is_right else {FALSELY_REFUSED})


def test_a_claimed_ticket_without_its_claim_is_lost() -> None:
    world = World()
    world.joined("ada")
    world.claimed("ada")
    world.claims.clear()
    assert world.kinds() == {LOST}


def test_two_tickets_with_one_claim_are_a_duplicate() -> None:
    world = World()
    world.joined("ada")
    world.joined("ben")
    world.claimed("ada")
    world.claimed("ben")
    world.row("ben", "claimed", "claim-ada")
    assert DUPLICATE in world.kinds()


@pytest.mark.parametrize("after", ["started", "waiting", "refused", "expired"])
def test_a_ticket_that_changed_after_its_end_is_revived(after: str) -> None:
    world = World()
    world.joined("ada")
    world.claimed("ada")
    world.change("ada", after)
    assert REVIVED in world.kinds()


@pytest.mark.parametrize("end", ["claimed", "refused", "dead"])
def test_a_ticket_does_not_end_so_without_having_been_started(end: str) -> None:
    world = World()
    world.joined("ada")
    world.claimed("ada")
    del world.changes[1]
    world.changes[-1] = Change("spring", "ticket-ada", end, at=at(2))
    assert REVIVED in world.kinds()


def test_a_dead_letter_may_be_requeued() -> None:
    world = World()
    world.joined("ada")
    world.claimed("ada")
    world.changes[2:2] = [Change("spring", "ticket-ada", "dead", at=at(1.5)), Change("spring", "ticket-ada", "started")]
    assert world.kinds() == set()


def test_an_end_that_was_told_and_is_another_one_in_the_end_is_revived() -> None:
    for told, claim in (("expired", ""), ("claimed", "claim-2")):
        world = World()
        world.joined("ada")
        world.claimed("ada")
        world.polled("ada", 3, 4, told, claim=claim)
        assert world.kinds() == {REVIVED}


def test_whoever_was_told_of_having_left_has_left_and_who_was_too_late_has_not() -> None:
    for status, problem, state, is_right in (
        (204, "", "left", True),
        (204, "", "expired", False),
        (409, "ticket-started", "left", False),
        (409, "ticket-started", "expired", True),
    ):
        world = World()
        world.joined("ada")
        world.change("ada", "waiting")
        world.change("ada", state)
        world.row("ada", state)
        world.ask(LEAVE, "ada", 3, 4, status, problem)
        assert (world.kinds() == set()) == is_right


@pytest.mark.parametrize(
    ("second", "is_right"),
    [
        (("waiting", 2, 5), False),
        (("waiting", 2, 4), True),  # they overlap
        (("waiting", 1, 5), True),
        (("started", 0, 5), True),
    ],
)
def test_a_position_does_not_grow_from_one_answer_to_a_later_one(second: tuple[str, int, int], is_right: bool) -> None:
    world = World()
    world.joined("ada", 1, 2, position=3)
    world.polled("ada", 3, 4, "waiting", 1)
    state, position, start = second
    world.polled("ada", start, 9, state, position)
    world.claimed("ada")
    assert world.kinds() == (set() if is_right else {PLACE_GREW})


@pytest.mark.parametrize(("first", "second"), [("started", "waiting"), ("claimed", "started")])
def test_a_stage_is_not_followed_by_an_earlier_one(first: str, second: str) -> None:
    world = World()
    world.joined("ada")
    world.claimed("ada")
    world.polled("ada", 3, 4, first, 0 if first == "started" else -1)
    world.polled("ada", 5, 6, second, 1 if second == "waiting" else 0)
    assert world.kinds() == {PLACE_GREW}


@pytest.mark.parametrize(("third", "is_right"), [(1.999, False), (2.0, True)])
def test_more_starts_than_the_rate_within_a_second_are_too_fast(third: float, is_right: bool) -> None:
    world = World()
    for user, start in (("ada", 1.0), ("ben", 1.5), ("cleo", third)):
        world.joined(user)
        world.claimed(user, start, start + 0.1)
    world.queue = QueueRow(2, 2, 3)
    assert world.kinds() == (set() if is_right else {TOO_FAST})


def test_a_second_try_is_a_start_too() -> None:
    world = World(queue=QueueRow(2, 2, 2))
    for user in ("ada", "ben"):
        world.joined(user)
        world.claimed(user, 1.0, 1.1)
    world.changes[2:2] = [
        Change("spring", "ticket-ada", "started", at=at(1.2)),
        Change("spring", "ticket-ada", "started", "again", at(1.5 + LEASE_SECONDS), at=at(1.5)),
    ]
    assert world.kinds() == {TOO_FAST}
    assert starts(world.changes) == [at(1.0), at(1.0), at(1.5)]


@pytest.mark.parametrize(("third", "is_right"), [(4.0, False), (1.0 + LEASE_SECONDS, True)])
def test_a_lease_is_under_way_until_its_time_is_over(third: float, is_right: bool) -> None:
    world = World(queue=QueueRow(9, 2, 9))
    for user, start, end in (("ada", 1.0, 99.0), ("ben", 2.0, 99.0), ("cleo", third, third + 0.1)):
        world.joined(user)
        world.claimed(user, start, end)
    assert world.kinds() == (set() if is_right else {TOO_MANY_AT_ONCE})


def test_a_lease_that_was_renewed_is_longer() -> None:
    world = World(queue=QueueRow(9, 1, 9))
    for user, start, end in (("ada", 1.0, 20.0), ("ben", 7.0, 8.0)):
        world.joined(user)
        world.claimed(user, start, end)
    assert world.kinds() == set()
    world.changes.insert(2, Change("spring", "ticket-ada", "started", "lease-ada", at(8 + LEASE_SECONDS), at=at(3)))
    assert world.kinds() == {TOO_MANY_AT_ONCE}


def test_a_queue_is_never_longer_than_it_may_be() -> None:
    world = World(queue=QueueRow(9, 9, 2))
    for user in ("ada", "ben", "cleo"):
        world.joined(user)
        world.claimed(user)
    assert world.kinds() == set()
    world.changes.sort(key=lambda each: each.state != "waiting")
    assert world.kinds() == {TOO_LONG}


def test_what_is_tried_for_ever_is_seen() -> None:
    world = World()
    world.joined("ada")
    world.claimed("ada")
    world.row("ada", "claimed", "claim-ada", tries=MOST_TRIES + 1)
    assert world.kinds() == {TRIED_FOR_EVER}


def test_a_queue_goes_on_with_a_ticket_that_was_started_after_it_was_well() -> None:
    world = World()
    world.claimed("ada", 1.0, 9.0)
    world.claimed("ben", 5.0, 6.5)
    assert resumed_seconds(world.changes, at(2.0)) == 4.5
    assert resumed_seconds(world.changes, at(5.5)) == float("inf")
