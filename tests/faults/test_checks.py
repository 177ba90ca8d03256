"""The checks by themselves: each kind of wrong history goes red, and a right one does not."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.faults.checks import (
    DUPLICATE,
    FALSELY_REFUSED,
    IMPOSSIBLE_READ,
    LOST,
    MISCOUNTED,
    NOT_QUIET,
    NOT_RECOVERED,
    OVERSOLD,
    PHANTOM,
    WRONG_ANSWER,
    check_all,
    check_quiet,
    check_recovery,
    longest_gap_seconds,
    resumed_after_seconds,
)
from tests.support.cluster_state import ClaimRow, CouponRow, Quiet, Snapshot
from tests.support.history import CLAIM, READ, History, Invocation, read_history


@dataclass
class World:
    """A history and a database, put together by hand. Moments are small numbers."""

    amount: int = 2
    remaining: int | None = None
    asked: list[Invocation] = field(default_factory=list)
    rows: list[ClaimRow] = field(default_factory=list)

    def claim(self, user: str, start: int, end: int, status: int, problem: str = "", claim: str = "") -> None:
        number = len(self.asked) + 1
        self.asked.append(
            Invocation(
                number, "c", CLAIM, "spring", user, "one", start, end, status, problem, claim, has_retry_after=True
            )
        )

    def made(self, user: str, start: int, end: int) -> None:
        self.claim(user, start, end, 201, claim=f"claim-{user}")
        self.row(user)

    def row(self, user: str, claim: str = "") -> None:
        self.rows.append(ClaimRow(claim or f"claim-{user}", "spring", user))

    def read(self, start: int, end: int, remaining: int, claimants: int | None = None) -> None:
        number = len(self.asked) + 1
        seen = self.amount - remaining if claimants is None else claimants
        self.asked.append(
            Invocation(number, "r", READ, "spring", "", "one", start, end, 200, remaining=remaining, claimants=seen)
        )

    def kinds(self) -> set[str]:
        remaining = self.amount - len(self.rows) if self.remaining is None else self.remaining
        snapshot = Snapshot({"spring": CouponRow("spring", self.amount, remaining)}, self.rows)
        return {violation.kind for violation in check_all(self.asked, snapshot)}


def test_a_right_history_is_right() -> None:
    world = World()
    world.read(1, 2, 2)
    world.made("ada", 1, 5)
    world.claim("ada", 6, 7, 409, "already-claimed", "claim-ada")
    world.claim("ben", 2, 9, 0, "timeout")
    world.row("ben")
    world.claim("cleo", 3, 4, 409, "sold-out")
    world.claim("cleo", 3, 8, 503, "lock-busy")
    world.read(10, 11, 0)
    assert world.kinds() == set()


def test_an_acknowledged_claim_that_is_not_there_is_lost() -> None:
    world = World()
    world.claim("ada", 1, 2, 201, claim="claim-ada")
    assert world.kinds() == {LOST}


def test_a_claim_that_somebody_was_told_of_and_is_not_there_is_lost() -> None:
    world = World()
    world.claim("ada", 1, 2, 0, "reset")
    world.claim("ada", 3, 4, 409, "already-claimed", "claim-ada")
    assert LOST in world.kinds()


def test_a_claim_that_became_another_users_is_lost() -> None:
    world = World()
    world.claim("ada", 1, 2, 201, claim="claim-1")
    world.claim("ben", 1, 2, 0, "timeout")
    world.row("ben", "claim-1")
    assert LOST in world.kinds()


@pytest.mark.parametrize("ending", [(409, "sold-out"), (503, "lock-busy"), (0, "refused"), (0, "closed-unread")])
def test_a_row_whose_user_was_told_no_or_was_never_heard_is_a_phantom(ending: tuple[int, str]) -> None:
    world = World(amount=1)
    world.claim("ada", 1, 2, *ending)
    world.row("ada")
    assert PHANTOM in world.kinds()


def test_a_row_that_nobody_asked_for_is_a_phantom() -> None:
    world = World()
    world.row("ada")
    assert world.kinds() == {PHANTOM}


def test_a_user_with_two_claims_is_a_duplicate() -> None:
    world = World()
    world.made("ada", 1, 2)
    world.claim("ada", 3, 4, 201, claim="claim-2")
    world.row("ada", "claim-2")
    assert world.kinds() == {DUPLICATE}


def test_a_claim_that_is_answered_as_new_twice_is_a_duplicate() -> None:
    world = World()
    world.made("ada", 1, 2)
    world.claim("ada", 3, 4, 201, claim="claim-ada")
    assert world.kinds() == {DUPLICATE}


def test_more_claims_than_the_amount_are_oversold() -> None:
    world = World(amount=1, remaining=0)
    world.made("ada", 1, 2)
    world.made("ben", 1, 2)
    assert world.kinds() == {OVERSOLD, MISCOUNTED}


def test_a_unit_that_came_back_is_miscounted() -> None:
    world = World(amount=2, remaining=2)
    world.made("ada", 1, 2)
    assert world.kinds() == {MISCOUNTED}


@pytest.mark.parametrize(
    ("last_claim", "is_possible"),
    [(None, False), ((5, 6), False), ((4, 6), True)],
    ids=["something is left in the end", "before the last claim is begun", "while the last claim is under way"],
)
def test_sold_out_is_told_only_when_every_unit_may_have_been_claimed(
    last_claim: tuple[int, int] | None, is_possible: bool
) -> None:
    world = World(amount=2)
    world.made("ada", 1, 2)
    world.claim("ben", 3, 4, 409, "sold-out")
    if last_claim is not None:
        world.made("cleo", *last_claim)
    assert world.kinds() == (set() if is_possible else {FALSELY_REFUSED})


def test_sold_out_to_somebody_who_holds_a_claim_is_a_false_refusal() -> None:
    world = World(amount=1)
    world.made("ada", 1, 2)
    world.claim("ada", 3, 4, 409, "sold-out")
    assert world.kinds() == {FALSELY_REFUSED}


def test_already_claimed_before_the_claim_was_begun_is_a_false_refusal() -> None:
    world = World()
    world.claim("ada", 1, 2, 409, "already-claimed", "claim-ada")
    world.made("ada", 3, 4)
    assert world.kinds() == {FALSELY_REFUSED}


@pytest.mark.parametrize(
    ("start", "end", "remaining", "is_possible"),
    [
        (1, 1, 2, True),
        (1, 1, 1, False),
        (3, 4, 2, True),
        (3, 4, 1, True),
        (3, 4, 0, False),
        (7, 8, 1, True),
        (7, 8, 2, False),
    ],
)
def test_a_read_shows_what_was_true_at_some_moment_of_it(
    start: int, end: int, remaining: int, is_possible: bool
) -> None:
    world = World(amount=2)
    world.made("ada", 2, 6)
    world.read(start, end, remaining)
    assert world.kinds() == (set() if is_possible else {IMPOSSIBLE_READ})


def test_a_count_never_rises_from_one_read_to_a_later_one() -> None:
    world = World(amount=2)
    world.made("ada", 1, 20)
    world.read(2, 3, 1)
    world.read(4, 5, 2)
    assert world.kinds() == {IMPOSSIBLE_READ}


def test_a_read_whose_claimants_do_not_add_up_is_impossible() -> None:
    world = World(amount=2)
    world.made("ada", 1, 2)
    world.read(3, 4, 1, claimants=0)
    assert world.kinds() == {IMPOSSIBLE_READ}


@pytest.mark.parametrize("ending", [(500, "internal-error"), (404, "unknown-coupon"), (0, "garbled"), (409, "")])
def test_an_answer_that_is_not_in_the_contract_is_wrong(ending: tuple[int, str]) -> None:
    world = World()
    world.claim("ada", 1, 2, *ending)
    assert WRONG_ANSWER in world.kinds()


def test_a_503_says_when_to_come_again() -> None:
    world = World()
    world.claim("ada", 1, 2, 503, "unavailable")
    assert world.kinds() == set()
    world.asked[0].has_retry_after = False
    assert world.kinds() == {WRONG_ANSWER}


def test_what_is_still_under_way_is_not_quiet() -> None:
    assert check_quiet(Quiet([], [], {"one claimsvc_claims_waiting": 0})) == []
    found = check_quiet(Quiet(["claim:coupon:spring on master 1"], ["backend 1 is active: x"], {"one waiting": 2}))
    assert [violation.kind for violation in found] == [NOT_QUIET] * 3


def test_recovery_counts_from_healing_and_by_claims_that_were_begun_after_it() -> None:
    world = World()
    world.made("ada", 1, 3_000_000_000)
    world.made("ben", 2_500_000_000, 9_000_000_000)
    assert [each.kind for each in check_recovery(world.asked, 2_000_000_000, 6.9)] == [NOT_RECOVERED]
    assert check_recovery(world.asked, 2_000_000_000, 7.1) == []
    assert [each.kind for each in check_recovery(world.asked, 3_000_000_000, 100)] == [NOT_RECOVERED]


def test_the_longest_gap_is_between_two_decided_claims_or_at_an_edge() -> None:
    world = World(amount=9)
    world.made("ada", 1, 1_000_000_000)
    world.claim("ben", 1, 4_000_000_000, 503, "unavailable")
    world.made("cleo", 1, 6_000_000_000)
    assert longest_gap_seconds(world.asked, 0, 7_000_000_000) == 5.0
    assert longest_gap_seconds(world.asked, 0, 13_000_000_000) == 7.0
    assert longest_gap_seconds([], 0, 2_000_000_000) == 2.0


def test_others_resume_when_one_of_them_makes_a_claim() -> None:
    world = World()
    world.made("ada", 2_000_000_000, 3_000_000_000)
    assert resumed_after_seconds(world.asked, "spring", 1_000_000_000, "two") == 2.0
    assert resumed_after_seconds(world.asked, "spring", 1_000_000_000, "one") == float("inf")


def test_a_history_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    with History(tmp_path / "history.ndjson") as history:
        first = history.begin("c1", CLAIM, "spring", "ada", "one")
        history.begin("c2", CLAIM, "spring", "ben", "one")  # never ends
        history.end(first, 201, claim="x")
    assert read_history(tmp_path / "history.ndjson") == history.invocations
    assert (history.acknowledged, history.definite) == (1, 1)


def test_an_invocation_is_written_before_anything_is_sent(tmp_path: Path) -> None:
    with History(tmp_path / "history.ndjson") as history:
        begun = history.begin("c1", CLAIM, "spring", "ada", "one")
        history.flush()
        assert read_history(tmp_path / "history.ndjson") == [begun]
        assert begun.is_unknown
