"""How readings become figures, figures one picture, and the picture one sentence; without servers."""

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from claimsvc.domain import Claim, Claimed, ClaimState, Coupon, SoldOut, StrategyName
from claimsvc.errors import LockBusyError
from claimsvc.live.events import KEPT, Events
from claimsvc.live.merge import Heard, Painter
from claimsvc.live.picture import Picture, quantile_ms
from claimsvc.live.summary import Summary, Window, _sum
from claimsvc.live.verdict import Verdict, judge
from claimsvc.metrics import LATENCY_BOUNDS, Metrics, Numbers, read_totals

CLAIMED = Claimed(Claim("id", "spring", "ada", ClaimState.ACTIVE, datetime(2026, 1, 1, tzinfo=UTC)))
SPRING = Coupon("spring", 100, 34, StrategyName.REDLOCK, datetime(2026, 1, 1, tzinfo=UTC))


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


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b'{"version": 1}', b'{"version": 2, "id": "x"}', b"\xff"])
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


def heard(name: str, coupons: dict[str, Numbers] | None = None, **changes: Any) -> Heard:
    silent = changes.pop("silent_seconds", 0.0)
    fields: dict[str, Any] = {
        "id": name,
        "name": name,
        "seconds": 1.0,
        "coupons": coupons or {},
        "all_coupons": _sum((coupons or {}).values()),
        "known": list(coupons or {}),
        "held": {},
        "process": {},
        "latency": [0.0] * len(LATENCY_BOUNDS),
        "masters": dict.fromkeys(("a", "b", "c"), (True, 10, 0.002)),
        "pool_size": 10,
        "events": [],
        **changes,
    }
    return Heard(Summary(**fields), silent, is_here=name == "here", is_silent=silent > 0)


def picture(*summaries: Heard) -> Picture:
    painter = Painter()
    return painter.paint(summaries, painter.coupons_shown(summaries), {"spring": SPRING}, hears_others=True)


def verdict(*summaries: Heard) -> Verdict:
    return judge(picture(*summaries))


TAKES_TURNS: Numbers = {
    "claimed": 1000,
    "attempts-acquired": 30,
    "attempts-busy": 60,
    "waits": 30,
    "wait_seconds": 0.66,
    "holds": 30,
    "hold_seconds": 0.33,
}


def test_figures_of_instances_add_up_and_their_turns_are_kept_apart() -> None:
    seen = picture(heard("here", {"spring": TAKES_TURNS}), heard("there", {"spring": TAKES_TURNS}))
    [row] = seen.coupons
    assert row.outcomes == {"claimed": 2000}
    assert row.turns == [(0, 0.33), (1, 0.33)]
    assert row.waiting_share == pytest.approx(0.667, abs=0.001)
    assert (row.amount, row.remaining) == (100, 34)


def test_an_instance_that_is_silent_counts_nothing_but_still_holds_what_it_held() -> None:
    silent = heard("there", {"spring": TAKES_TURNS}, held={"spring": 0.5}, silent_seconds=12.0)
    seen = picture(heard("here", {"spring": {"claimed": 5, "attempts-busy": 3}}), silent)
    assert seen.coupons[0].outcomes == {"claimed": 5}
    assert (seen.coupons[0].holder, seen.coupons[0].held_seconds) == (1, 12.5)
    assert "there has held it for 12 s and is silent" in judge(seen).text


def down(*names: str) -> dict[str, tuple[bool, int, float]]:
    return {name: (name not in names, 10, 0.002) for name in ("a", "b", "c")}


@pytest.mark.parametrize(
    ("summaries", "level", "words"),
    [
        pytest.param([heard("here")], "quiet", "nobody is claiming", id="quiet"),
        pytest.param(
            [heard("here", {"spring": {"claimed": 500, "attempts-acquired": 20, "waits": 20, "wait_seconds": 0.02}})],
            "good",
            "spring is hot: 500 claims a second",
            id="hot",
        ),
        pytest.param([heard("here", {"spring": {"sold-out": 500}})], "good", "spring is sold out", id="sold out"),
        pytest.param(
            [heard("here", {"spring": TAKES_TURNS}), heard("there", {"spring": TAKES_TURNS})],
            "good",
            "spring is contended: 2 instances take turns, and 67% of their time is waiting for its lock",
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
            [heard("here", {"spring": TAKES_TURNS}, process={"transactions": 10, "transaction_seconds": 2.5})],
            "warning",
            "Claims wait for PostgreSQL: a transaction takes 250 ms",
            id="slow database",
        ),
        pytest.param(
            [heard("here", {"spring": TAKES_TURNS}, masters=dict.fromkeys("abc", (True, 10, 0.5)))],
            "warning",
            "Claims wait for Redis: a call takes 50 ms",
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
            "held by nobody that we hear of",
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
    events = Events()
    events.add("gave-up", "spring", 12)
    said = verdict(heard("here", {"spring": TAKES_TURNS}, events=list(events)), heard("there", {"spring": TAKES_TURNS}))
    assert said.level == "bad"
    assert said.text == "spring: 12 claims gave up waiting for the lock in the last 30 s, with 34 units left."
    assert said.advice


def test_with_several_workers_each_reads_its_own_totals(tmp_path: Path) -> None:
    """prometheus_client decides when it is imported whether figures are kept in files, so this takes a process."""
    program = (
        "from claimsvc.domain import SoldOut\n"
        "from claimsvc.metrics import Metrics, read_totals\n"
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
