"""The plan of each scenario: which coupons, which claims, and what must come of them."""

from collections import Counter

import pytest

from stress_test.answers import answer_of, no_answer
from stress_test.errors import UsageError
from stress_test.history import (
    ALREADY_CLAIMED,
    CLAIMED,
    CLAIMED_UNREADABLY,
    QUEUE_FULL,
    QUEUED,
    QUEUED_UNREADABLY,
    SOLD_OUT,
    QueuePlan,
)
from stress_test.scenarios import MAX_CLAIMS, SCENARIOS, Sizes, make_plan


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_two_rounds_share_a_coupon_or_a_user(name: str) -> None:
    scenario = SCENARIOS[name]
    one, other = (make_plan(scenario, scenario.defaults, token) for token in ("aa", "bb"))
    assert not {coupon.name for coupon in one.coupons} & {coupon.name for coupon in other.coupons}
    assert not {claim.user_id for claim in one.claims} & {claim.user_id for claim in other.claims}


def test_the_flash_sale_is_a_hundred_users_on_five_units() -> None:
    plan = make_plan(SCENARIOS["flash-sale"], SCENARIOS["flash-sale"].defaults, "aa")
    assert [(coupon.amount, coupon.expected) for coupon in plan.coupons] == [(5, {CLAIMED: 5, SOLD_OUT: 95})]
    assert len({claim.user_id for claim in plan.claims}) == plan.connections == 100


def test_the_double_dip_is_ten_claims_of_one_user() -> None:
    plan = make_plan(SCENARIOS["double-dip"], SCENARIOS["double-dip"].defaults, "aa")
    assert plan.coupons[0].expected == {CLAIMED: 1, ALREADY_CLAIMED: 9}
    assert Counter(claim.user_id for claim in plan.claims).most_common() == [("user-aa", 10)]


def test_the_stampede_is_a_thousand_users_on_one_unit() -> None:
    plan = make_plan(SCENARIOS["stampede"], SCENARIOS["stampede"].defaults, "aa")
    assert plan.coupons[0].expected == {CLAIMED: 1, SOLD_OUT: 999}
    assert plan.connections == 1000


def test_many_coupons_are_shuffled_and_a_seed_repeats_the_order() -> None:
    scenario = SCENARIOS["many-coupons"]
    sizes = Sizes(claims=6, quota=2, coupons=3, seed=7)
    plan = make_plan(scenario, sizes, "aa")
    assert plan == make_plan(scenario, sizes, "aa")
    assert plan.claims != make_plan(scenario, Sizes(claims=6, quota=2, coupons=3, seed=8), "aa").claims
    assert set(Counter(claim.coupon_name for claim in plan.claims).values()) == {6}
    assert all(coupon.expected == {CLAIMED: 2, SOLD_OUT: 4} for coupon in plan.coupons)


def test_a_sustained_run_spaces_its_claims_evenly_on_plentiful_stock() -> None:
    sizes = Sizes(coupons=3, rate=10.0, duration_seconds=1.0)
    plan = make_plan(SCENARIOS["sustained"], sizes, "aa")
    assert [claim.due_seconds for claim in plan.claims] == [number / 10 for number in range(10)]
    assert [coupon.amount for coupon in plan.coupons] == [4, 4, 4]
    assert len({claim.user_id for claim in plan.claims}) == 10


def test_of_those_who_join_a_queue_each_tenth_asks_twice_in_a_row() -> None:
    plan = make_plan(SCENARIOS["queue"], SCENARIOS["queue"].defaults, "aa")
    users = [claim.user_id for claim in plan.claims]
    assert (len(users), len(set(users)), users[0]) == (550, 500, users[1])
    assert plan.coupons[0].queue == QueuePlan(10, 5, 10, 100, "fifo")


def test_those_who_are_late_for_a_draw_join_after_its_start() -> None:
    plan = make_plan(SCENARIOS["draw"], SCENARIOS["draw"].defaults, "aa")
    assert Counter(claim.due_seconds for claim in plan.claims) == {0.0: 300, 5.5: 50}
    assert (plan.coupons[0].starts_in_seconds, plan.coupons[0].amount) == (5.0, 320)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("flash-sale", Sizes(claims=MAX_CLAIMS + 1, quota=1)),
        ("sustained", Sizes(rate=1000.0, duration_seconds=MAX_CLAIMS)),
    ],
)
def test_a_round_too_large_to_keep_is_refused(name: str, sizes: Sizes) -> None:
    with pytest.raises(UsageError, match="--rounds"):
        make_plan(SCENARIOS[name], sizes, "aa")


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (409, b'{"type": "/problems/sold-out"}', SOLD_OUT),
        (409, b'{"type": "https://example.org/problems/sold-out/"}', SOLD_OUT),
        (409, b'{"message": "sold out"}', "409"),
        (409, b"<html>", "409"),
        (503, b'{"type": "/problems/lock-busy"}', "503 lock-busy"),
        (502, b"", "502"),
        (429, b'{"type": "/problems/queue-full"}', QUEUE_FULL),
        (
            202,
            b'{"id":"1","coupon_name":"c","user_id":"u","state":"waiting","joined_at":"2026-01-01"}',
            QUEUED_UNREADABLY,
        ),
        (
            202,
            b'{"id":"1","coupon_name":"c","user_id":"u","state":"waiting","joined_at":"2026-01-01T00:00:00Z"}',
            QUEUED,
        ),
        (201, b"{}", CLAIMED_UNREADABLY),
        (201, b"", CLAIMED_UNREADABLY),
        (201, b'{"id":"1","coupon_name":"c","user_id":"u","claimed_at":"yesterday"}', CLAIMED_UNREADABLY),
        (201, b'{"id":"1","coupon_name":"c","user_id":"u","claimed_at":"2026-01-01T00:00:00Z"}', CLAIMED),
    ],
)
def test_an_answer_is_named_by_its_status_and_problem(status: int, body: bytes, outcome: str) -> None:
    assert answer_of(status, body).outcome == outcome


@pytest.mark.parametrize(
    ("failure", "outcome"),
    [(TimeoutError(), "no-answer:timeout"), (ConnectionResetError(), "no-answer:reset")],
)
def test_a_missing_answer_is_named_by_its_cause(failure: Exception, outcome: str) -> None:
    assert no_answer(failure).outcome == outcome
