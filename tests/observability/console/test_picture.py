"""How readings become figures, and figures one picture; without servers."""

import dataclasses
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest

from claimsvc.domain import Claim, Claimed, ClaimState, SoldOut
from claimsvc.errors import LockBusyError
from claimsvc.observability.console.events import KEPT, Event, Events
from claimsvc.observability.console.membership import Membership
from claimsvc.observability.console.merge import PictureBuilder
from claimsvc.observability.console.picture import quantile_ms
from claimsvc.observability.console.summary import Summary, Window
from claimsvc.observability.metrics import LATENCY_BOUNDS, Metrics, read_totals
from tests.observability.console.summaries import (
    SOLD_OUT_SPRING,
    TAKES_TURNS,
    down,
    heard,
    picture,
    row,
    summary,
    with_figures,
)

CLAIMED = Claimed(Claim("id", "spring", "ada", ClaimState.ACTIVE, datetime(2026, 1, 1, tzinfo=UTC)))


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch) -> Metrics:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    return Metrics()


def test_totals_are_the_same_before_and_after_prometheus_has_read_them(metrics: Metrics) -> None:
    for _ in range(3):
        metrics.claim_ended("spring", "redlock", CLAIMED, 0.004)
    metrics.attempted("spring", "busy")
    metrics.waited(["spring"], "acquired", 0.5)
    metrics.held(["spring"], 0.25)
    metrics.retried("spring")
    metrics.transaction_ended(0.002)
    before = read_totals(metrics)
    metrics.render()
    metrics.claim_ended("spring", "redlock", SoldOut(), 0.004)
    after = read_totals(metrics)
    expected = {"claimed": 3, "attempts-busy": 1, "waits": 1, "wait_seconds": 0.5}
    expected |= {"holds": 1, "hold_seconds": 0.25, "retries": 1}
    assert before.coupons["spring"] == expected
    assert after.coupons["spring"] == {**expected, "sold-out": 1}
    assert (sum(before.latency), sum(after.latency)) == (3, 4)
    assert before.process["transactions"] == 1


def test_a_summary_is_what_has_grown_and_survives_its_way_over_redis(metrics: Metrics) -> None:
    window, events = Window("id", "name", 10), Events()
    metrics.claim_ended("spring", "redlock", CLAIMED, 0.004)
    window.add(read_totals(metrics))
    metrics.claim_ended("spring", "redlock", CLAIMED, 0.004)
    metrics.taken(["spring"])
    window.add(read_totals(metrics))
    events.add("sold-out", "spring")
    summary = window.summary(events)
    assert summary.coupons == {"spring": {"claimed": 1}}
    assert list(summary.held) == ["spring"]
    received = Summary.from_bytes(summary.to_bytes())
    assert received is not None
    assert received.coupons == summary.coupons
    assert received.events == summary.events


@pytest.mark.parametrize(
    "text", [b"", b"{}", b"[]", b'{"version": 1}', b'{"version": 2, "id": "x"}', b"\xff", b" " * 300_000]
)
def test_what_is_no_summary_of_this_version_is_passed_over(text: bytes) -> None:
    assert Summary.from_bytes(text) is None


def test_claims_that_gave_up_are_one_event_that_grows(metrics: Metrics) -> None:
    now = 100.0
    events = Events(lambda: now)
    before = read_totals(metrics)
    metrics.claim_ended("spring", "redlock", CLAIMED, 0.1)
    for _ in range(2):
        metrics.claim_ended("spring", "redlock", LockBusyError("busy"), 1.5)
        after = read_totals(metrics)
        events.compare(before, after)
        before, now = after, now + 0.5
    assert [(event.kind, event.subject, event.count) for event in events] == [("gave-up", "spring", 2)]


def test_events_are_few_whatever_happens() -> None:
    events = Events()
    for number in range(1000):
        events.add("lock-lost", f"coupon-{number}")
    assert len(list(events)) == KEPT


def test_quantiles_lie_between_the_bounds_that_were_counted() -> None:
    counts = [0.0] * len(LATENCY_BOUNDS)
    assert quantile_ms(counts, 0.5) is None
    counts[2] = 100  # from 2.5 to 5 ms
    assert quantile_ms(counts, 0.5) == pytest.approx(3.75)
    counts[-1] = 100  # past the last bound, of which only that much is known
    assert quantile_ms(counts, 0.99) == pytest.approx(20_000)


def test_what_says_something_else_than_a_summary_is_passed_over() -> None:
    told = orjson.loads(summary("there").to_bytes())
    assert Summary.from_bytes(orjson.dumps(told)) is not None
    for field, value in (
        ("coupons", []),
        ("coupons", {"spring": {"claimed": "x"}}),
        ("held", None),
        ("latency", [1.0]),
    ):
        assert Summary.from_bytes(orjson.dumps({**told, field: value})) is None, field


def test_events_of_a_kind_that_is_not_known_are_passed_over() -> None:
    odd = [Event(1, time.time(), "{count.__class__}", "spring"), Event(2, time.time(), "sold-out", "spring")]
    assert [event.text for event in picture(heard("there", events=odd)).events] == ["spring is sold out"]


def test_figures_of_instances_add_up_and_their_turns_are_kept_apart() -> None:
    seen = row(heard("here", {"spring": TAKES_TURNS}), heard("there", {"spring": TAKES_TURNS}))
    assert seen.outcomes == {"claimed": 2000}
    assert seen.turns == [(0, 0.33), (1, 0.33)]
    assert seen.waiting_share == pytest.approx(0.667, abs=0.001)
    assert (seen.amount, seen.remaining) == (100, 34)
    assert seen.lock == "contended"


def test_a_sold_out_coupon_that_is_looked_at_in_turns_is_not_contended() -> None:
    looked_at = with_figures(TAKES_TURNS, claimed=0) | {"sold-out": 1000}
    both = heard("here", {"spring": looked_at}), heard("there", {"spring": looked_at})
    assert row(*both, stock=SOLD_OUT_SPRING).lock == "sold-out"
    # Where the stock is not known, the answers are.
    builder = PictureBuilder()
    [seen] = builder.build(both, builder.coupons_shown(both), {}, hears_others=True).coupons
    assert seen.lock == "sold-out"


@pytest.mark.parametrize(
    ("figures", "lock"),
    [
        pytest.param({"attempts-busy": 4}, "stranger", id="nobody gets it"),
        pytest.param({"attempts-busy": 40, "attempts-acquired": 9, "hold_seconds": 0.03}, "stranger", id="few get it"),
        pytest.param({"attempts-busy": 1, "attempts-acquired": 1, "hold_seconds": 0.003}, "free", id="one collision"),
        pytest.param({"attempts-busy": 40, "attempts-acquired": 9, "hold_seconds": 0.5}, "free", id="held by ours"),
        pytest.param({"claimed": 5, "attempts-acquired": 5, "hold_seconds": 0.01}, "free", id="never refused"),
        pytest.param({}, "idle", id="nobody wants it"),
    ],
)
def test_a_lock_is_a_strangers_if_it_is_refused_much_and_hardly_held(figures: dict[str, float], lock: str) -> None:
    assert row(heard("here", {"spring": figures})).lock == lock


def test_what_redis_needs_to_take_a_lock_and_give_it_back_is_no_strangers() -> None:
    figures: dict[str, float] = {"attempts-busy": 40, "attempts-acquired": 9, "hold_seconds": 0.03}
    slow = dict.fromkeys("abc", (True, 10, 0.5))  # 50 ms a call: nine turns are 900 ms of nothing else
    assert row(heard("here", {"spring": figures}, masters=slow)).lock == "free"


def test_a_lock_is_called_a_strangers_only_after_a_while() -> None:
    refused = heard("here", {"spring": {"attempts-busy": 4}})
    builder = PictureBuilder(strange_after_seconds=3600)
    [seen] = builder.build([refused], ["spring"], {}, hears_others=True).coupons
    assert seen.lock != "stranger"


def test_a_turn_is_split_where_the_figures_can_tell() -> None:
    process = {"transactions": 30, "transaction_seconds": 0.12}
    turn = row(heard("here", {"spring": TAKES_TURNS}, process=process)).turn
    assert turn is not None
    assert (turn.redis, turn.transactions, turn.rest) == (0.4, 4.0, 7.0)
    others = heard("here", {"spring": TAKES_TURNS, "autumn": TAKES_TURNS}, process=process)
    assert [each.turn for each in picture(others).coupons] == [None, None]


def test_a_master_is_shown_as_each_instance_sees_it() -> None:
    silent = heard("gone", masters=down("a", "b", "c"), silent_seconds=9.0)
    cut_off = heard("there", masters={**down("b"), "b": (False, 50, 10.0)})
    masters = {each.name: each for each in picture(heard("here"), cut_off, silent).masters}
    assert (masters["a"].up_at, masters["a"].down_at) == ([0, 1], [])
    assert (masters["b"].up_at, masters["b"].down_at) == ([0], [1])
    # What it takes to find out that it is still down is no call that a claim makes.
    assert masters["b"].call_ms == pytest.approx(0.2)


def test_a_coupon_that_is_named_like_the_rest_gets_no_stock_of_its_own() -> None:
    """`other` has no figures of its own: they would stand beside a stock that is not theirs."""
    assert PictureBuilder().coupons_shown([heard("here", {"other": TAKES_TURNS})]) == ["other"]


class Clocks:
    """Two clocks that are moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def attendance(self, events: Events | None = None) -> Membership:
        return Membership(events or Events(), clock=lambda: self.now, wall_clock=lambda: self.now + 1e9)


def test_an_instance_whose_clock_is_wrong_is_shown_by_ours() -> None:
    clocks = Clocks()
    others = clocks.attendance()
    for told_at in (400.0, 400.1, 400.25):  # ten minutes behind, and its way here varies
        others.hear(summary("web:1", told_at=1e9 + told_at, started_at=1e9 + 340))
        clocks.now += 0.15
    [there] = others.heard()
    assert there.clock_offset_seconds == 600.0
    gave_up = [Event(1, time.time() - 605, "gave-up", "spring", 3)]
    late = heard("there", {"spring": TAKES_TURNS}, events=gave_up)
    assert row(late).gave_up == 0
    seen = row(dataclasses.replace(late, clock_offset_seconds=600.0))
    assert (seen.gave_up, seen.gave_up_age_seconds) == (3, 5)


def test_a_process_that_follows_another_on_its_host_is_a_restart() -> None:
    clocks, events = Clocks(), Events()
    others = clocks.attendance(events)
    others.hear(summary("web:1"))
    others.hear(summary("db:1"))
    clocks.now += 3
    others.hear(summary("web:2"))
    others.hear(summary("db:1"))
    assert [(each.summary.name, each.restarts) for each in others.heard()] == [("db:1", 0), ("web:1", 0), ("web:2", 1)]
    told = [(event.kind, event.subject) for event in events]
    assert told == [("instance-new", "web:2"), ("instance-silent", "web:1")]
    others.hear(summary("web:1"))  # it was only paused
    assert [each.restarts for each in others.heard()] == [0, 0, 0]
    others.hear(summary("web:1", is_leaving=True))
    assert [each.restarts for each in others.heard()] == [0, 1]


def test_who_is_silent_for_long_is_forgotten_and_so_many_are_remembered_at_most() -> None:
    clocks = Clocks()
    others = clocks.attendance()
    for number in range(1000):
        others.hear(summary(f"web-{number}:1"))
    assert len(others.heard()) == 200
    clocks.now += 30
    assert all(each.is_silent for each in others.heard())
    clocks.now += 31
    assert others.heard() == []


def test_with_several_workers_each_reads_its_own_totals(tmp_path: Path) -> None:
    """prometheus_client decides when it is imported whether figures are kept in files, so this takes a process."""
    program = (
        "from claimsvc.domain import SoldOut\n"
        "from claimsvc.observability.metrics import Metrics, read_totals\n"
        "metrics = Metrics()\n"
        "metrics._flusher.changed = lambda: None\n"
        "metrics.coupons.count('spring')\n"
        "metrics.claim_ended('spring', 'redlock', SoldOut(), 0.1)\n"
        "metrics.transaction_ended(0.1)\n"
        "metrics.flush()\n"
        "totals = read_totals(metrics)\n"
        "print(totals.coupons['spring'], totals.process['transactions'], sum(totals.latency))"
    )
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["{'sold-out':", "1.0}", "1.0", "1.0"]
