"""The sentence: which of what is true is said, on what evidence, and what is advised; without servers."""

import time

import pytest

from claimsvc.domain import HeldLock
from claimsvc.observability.console.diagnosis import judge
from claimsvc.observability.console.events import Event
from claimsvc.observability.console.failures import suspect
from claimsvc.observability.console.locks import LockInspection
from claimsvc.observability.console.membership import Heard
from claimsvc.observability.console.picture import Picture
from claimsvc.observability.metrics import Numbers
from tests.observability.console.summaries import (
    SOLD_OUT_SPRING,
    TAKES_TURNS,
    down,
    heard,
    picture,
    verdict,
    with_figures,
)

# Of a hundred claims, twenty took longer than the objective.
SLOW: Numbers = {"decided": 100, "slow": 20, "requests": 100}


def gave_up(count: int, *, seconds_ago: float = 0.0) -> list[Event]:
    return [Event(1, time.time() - seconds_ago, "gave-up", "spring", count)]


@pytest.mark.parametrize(
    ("summaries", "level", "words"),
    [
        pytest.param([heard("here")], "quiet", "there are no claims", id="quiet"),
        pytest.param(
            [heard("here", {"spring": {"claimed": 500, "attempts-acquired": 20, "waits": 20, "wait_seconds": 0.02}})],
            "good",
            "spring is hot: 500 claims a second",
            id="hot",
        ),
        pytest.param([heard("here", {"spring": {"sold-out": 500}})], "good", "spring is sold out", id="sold out"),
        pytest.param([heard("here", {"spring": {"not-open": 500}})], "good", "spring is not open", id="not open"),
        pytest.param([heard("here", {"spring": {"claimed": 5}})], "good", "5 claims a second on 1 coupon;", id="few"),
        pytest.param(
            [heard("here", {"spring": TAKES_TURNS}), heard("there", {"spring": TAKES_TURNS})],
            "good",
            "spring is contended: 2 instances take turns, and 67 % of their time is waiting for its lock",
            id="contended",
        ),
        pytest.param(
            [heard("here", {"spring": TAKES_TURNS}, masters=down("b"))],
            "warning",
            "1 of 3 masters is down",
            id="one down",
        ),
        pytest.param([heard("here", masters=down("b", "c"))], "bad", "2 of 3 masters are down", id="quorum lost"),
        pytest.param(
            [heard("here", {"spring": TAKES_TURNS}, process=SLOW | {"transactions": 10, "transaction_seconds": 2.5})],
            "warning",
            "Claims are slow, because they wait for PostgreSQL: a transaction takes 250 ms",
            id="slow database",
        ),
        pytest.param(
            [heard("here", {"spring": TAKES_TURNS}, process=SLOW, masters=dict.fromkeys("abc", (True, 10, 0.5)))],
            "warning",
            "Claims are slow, because they wait for Redis: a call takes 50 ms",
            id="slow redis",
        ),
        pytest.param(
            [heard("here", {"spring": {"unavailable": 40}}, process={"pool_in_use": 10})],
            "bad",
            "PostgreSQL cannot keep up: 40 claims a second fail",
            id="pool exhausted",
        ),
        pytest.param(
            [heard("here", {"spring": {"attempts-busy": 4}})],
            "warning",
            "spring: the lock is refused, although no known instance holds it",
            id="dead holder",
        ),
    ],
)
def test_the_worst_that_is_true_is_said(summaries: list[Heard], level: str, words: str) -> None:
    said = verdict(*summaries)
    assert words in said.text
    assert said.level == level
    assert said.advice or level in ("quiet", "good")


def test_claims_that_gave_up_are_said_before_the_contention_that_made_them() -> None:
    said = verdict(
        heard("here", {"spring": TAKES_TURNS}, events=gave_up(12, seconds_ago=2)),
        heard("there", {"spring": TAKES_TURNS}),
    )
    assert (said.level, said.text) == ("bad", "spring: claims gave up waiting for the lock with stock left.")
    assert said.evidence == "In 30 s 12 claims gave up, the last 2 s ago."
    assert said.advice


def test_what_has_ended_is_said_to_have_ended_and_not_before_what_goes_on() -> None:
    before = gave_up(3, seconds_ago=22)
    said = verdict(heard("here", {"spring": {"claimed": 120}}, events=before))
    assert said.level == "warning"
    assert "That has ended" in said.text
    assert said.evidence == "In 30 s 3 claims gave up, the last 22 s ago; now 120 claims a second are answered."
    now = verdict(heard("here", {"spring": {"claimed": 120}}, events=before, masters=down("b")))
    assert "1 of 3 masters is down" in now.text


def test_who_gave_up_on_a_sold_out_coupon_lost_nothing() -> None:
    said = verdict(heard("here", {"spring": TAKES_TURNS}, events=gave_up(3)), stock=SOLD_OUT_SPRING)
    assert said.level == "warning"
    assert "is sold out, and some claims timed out on the lock" in said.text


def test_a_sold_out_coupon_is_not_said_to_be_contended() -> None:
    looked_at = with_figures(TAKES_TURNS, claimed=0) | {"sold-out": 1000}
    said = verdict(heard("here", {"spring": looked_at}), heard("there", {"spring": looked_at}), stock=SOLD_OUT_SPRING)
    assert said.text == "spring is sold out, and still gets 2,000 claims a second."


def test_an_instance_that_is_silent_counts_nothing_but_still_holds_what_it_held() -> None:
    silent = heard("there", {"spring": TAKES_TURNS}, held={"spring": 0.5}, silent_seconds=12.0)
    seen = picture(heard("here", {"spring": {"claimed": 5, "attempts-busy": 3}}), silent)
    assert seen.coupons[0].outcomes == {"claimed": 5}
    assert (seen.coupons[0].holder, seen.coupons[0].held_seconds) == (1, 12.5)
    assert "there has held it for 12 s and is silent" in judge(seen).text


def refused() -> Picture:
    return picture(heard("here", {"spring": {"attempts-busy": 4, "lock-busy": 2}}, events=gave_up(2)))


def lock(holder: str, *, is_held: bool = True, **ttl_seconds: float) -> HeldLock:
    return HeldLock("spring", holder, is_held, 5.0, ttl_seconds, "", ())


@pytest.mark.parametrize(
    ("looked", "evidence", "advice"),
    [
        pytest.param(None, "0 % of the time", "Run `claimsvc locks`", id="not asked yet"),
        pytest.param(LockInspection("spring", None), "0 % of the time", "Run `claimsvc locks`", id="no answer"),
        pytest.param(LockInspection("autumn", ()), "0 % of the time", "Run `claimsvc locks`", id="another coupon"),
        pytest.param(
            LockInspection("spring", (lock("web:9:abc", a=12.34, b=12.3),)),
            "web:9:abc (unknown here) has it: a 12.3 s left and b 12.3 s left",
            "expires in 12 s",
            id="a dead instance",
        ),
        pytest.param(
            LockInspection("spring", (lock("here", a=12.34, b=12.3),)),
            "here (which does not report it)",
            "",
            id="one that forgot",
        ),
        pytest.param(
            LockInspection("spring", (lock("", a=0.0, b=0.0, c=0.0),)),
            "an unknown client",
            "it stays. `claimsvc locks release spring`",
            id="a key without end",
        ),
        pytest.param(
            LockInspection("spring", (lock("web:9:abc", is_held=False, a=3.0),)),
            "No majority",
            "leftover",
            id="left over",
        ),
        pytest.param(LockInspection("spring", ()), "free at this moment", "another version", id="free now"),
    ],
)
def test_who_refuses_is_named_as_far_as_it_is_known(looked: LockInspection | None, evidence: str, advice: str) -> None:
    assert suspect(refused()) == "spring"
    said = judge(refused(), looked)
    assert said.level == "bad"
    assert evidence in said.evidence
    assert advice in said.advice


def test_a_name_that_somebody_wrote_into_redis_is_cut_short() -> None:
    said = judge(refused(), LockInspection("spring", (lock("x" * 100_000, a=1.0, b=1.0),)))
    assert len(said.evidence) < 500


@pytest.mark.parametrize(
    ("redis_ms", "transactions_ms", "hold_ms", "words"),
    [
        pytest.param(28, 34, 90, "No part of it dominates", id="34 of 146 ms"),
        pytest.param(1, 80, 90, "Check PostgreSQL first", id="postgresql"),
        pytest.param(60, 10, 40, "Check Redis first", id="redis"),
        pytest.param(1, 10, 90, "spent in this service", id="itself"),
        pytest.param(1, 2, 4, "That is not long", id="short"),
    ],
)
def test_only_what_is_most_of_a_turn_is_blamed_for_it(
    redis_ms: float, transactions_ms: float, hold_ms: float, words: str
) -> None:
    turns = 5
    figures: Numbers = with_figures(
        TAKES_TURNS, holds=turns, hold_seconds=turns * hold_ms / 1000, **{"attempts-busy": 9}
    )
    here = heard(
        "here",
        {"spring": figures},
        process={"transactions": turns, "transaction_seconds": turns * transactions_ms / 1000},
        masters=dict.fromkeys("abc", (True, 10, redis_ms / 100)),
        events=gave_up(3),
    )
    advice = verdict(here).advice
    assert words in advice
    blamed = [who for who in ("PostgreSQL first", "Redis first", "in this service") if who in advice]
    assert blamed == [who for who in blamed if who in words]


def test_neither_is_blamed_when_both_are_slow() -> None:
    said = verdict(
        heard(
            "here",
            {"spring": TAKES_TURNS},
            process=SLOW | {"transactions": 10, "transaction_seconds": 1.32},
            masters=dict.fromkeys("abc", (True, 10, 0.5)),
        )
    )
    assert said.text == "Claims are slow."
    assert "Their time: 0 % waiting for turns, 50 % Redis, 50 % PostgreSQL, 0 % this service." in said.evidence
    assert "No single cause" in said.advice


def test_who_sees_a_master_down_is_said() -> None:
    said = verdict(heard("here", masters=down("b")), heard("there"))
    assert said.evidence == "b is down for here, not for the other."
    assert "network" in said.advice
    assert verdict(heard("here", masters=down("b")), heard("there", masters=down("b"))).evidence == (
        "b is down for every instance."
    )


def test_an_instance_that_reaches_no_majority_is_named() -> None:
    said = verdict(heard("here"), heard("there", masters=down("a", "b")), heard("gone", silent_seconds=5.0))
    assert said.level == "bad"
    assert said.text.startswith("there is not ready: it reaches no majority of the masters")


def test_the_kind_stays_while_figures_change() -> None:
    one = verdict(heard("here", {"spring": {"claimed": 500}}))
    other = verdict(heard("here", {"spring": {"claimed": 600}}))
    assert one.text != other.text
    assert one.kind == other.kind
