"""What the metrics make of queues: labels, what several workers tell together, and when a queue counts as stalled."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from claimsvc.domain import (
    LeaseLost,
    Queue,
    Queued,
    QueueFull,
    QueueStatus,
    QueueStop,
    StrategyName,
    Ticket,
    TicketState,
    WaitsForUnits,
)
from claimsvc.observability.metrics import Metrics, read_totals

NOW = datetime.now(UTC)


def ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)


def status(coupon_name: str = "spring", **changes: object) -> QueueStatus:
    """A queue in which 7 wait, the first for 30 of at most 100 s, and in which one was started a second ago."""
    usual = QueueStatus(
        coupon_name=coupon_name,
        queue=Queue(rate_per_second=10, concurrency=5, max_wait_seconds=100, max_length=1000),
        waiting=7,
        started=2,
        dead=0,
        pace=9.5,
        stopped=None,
        is_paused=False,
        oldest_joined_at=ago(30),
        dispatcher="host:1:abc",
        dispatched_at=ago(1),
    )
    return replace(usual, **changes)  # type: ignore[arg-type]


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch) -> Metrics:
    """Those of a single worker."""
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    return Metrics()


def parsed(exposition: str) -> dict[str, float]:
    return {name: float(value) for name, value in re.findall(r"^(claimsvc_\S+) (\S+)$", exposition, re.MULTILINE)}


def lines(metrics: Metrics) -> dict[str, float]:
    """The value of each series."""
    return parsed(metrics.render()[0].decode())


def of_coupon(seen: Mapping[str, float], name: str) -> list[str]:
    return [series for series in seen if f'coupon="{name}"' in series]


def test_what_becomes_of_tickets_is_counted_for_their_coupon(metrics: Metrics) -> None:
    metrics.coupons.count("spring")
    metrics.ticket_started("spring", 12.0)
    metrics.ticket_started("unlabelled", 700.0)
    metrics.ticket_ended("spring", TicketState.CLAIMED)
    metrics.dispatched(0.004)
    seen = lines(metrics)
    assert seen['claimsvc_ticket_wait_seconds_sum{coupon="spring"}'] == 12
    assert seen['claimsvc_ticket_wait_seconds_bucket{coupon="other",le="300.0"}'] == 0
    assert seen['claimsvc_ticket_wait_seconds_bucket{coupon="other",le="900.0"}'] == 1
    assert seen['claimsvc_tickets_total{coupon="spring",end="claimed"}'] == 1
    # Prometheus sees the increase of a series only from its second sample on.
    assert seen['claimsvc_tickets_total{coupon="spring",end="expired"}'] == 0
    assert seen["claimsvc_ticket_dispatch_lag_seconds_sum"] == 0.004


def test_a_sample_shows_each_queue_and_all_dead_letters(metrics: Metrics) -> None:
    metrics.queues_sampled(
        [
            status("spring", dead=2),
            status("autumn", waiting=0, started=0, dead=3, oldest_joined_at=None),
            status("winter", stopped=QueueStop.PAUSED, is_paused=True),
        ]
    )
    seen = lines(metrics)
    assert seen['claimsvc_tickets_waiting{coupon="spring"}'] == 7
    assert seen['claimsvc_ticket_longest_wait_seconds{coupon="spring"}'] == pytest.approx(30, abs=5)
    assert seen['claimsvc_ticket_longest_wait_ratio{coupon="spring"}'] == pytest.approx(0.3, abs=0.05)
    assert seen['claimsvc_tickets_waiting{coupon="autumn"}'] == 0
    assert seen['claimsvc_dead_letters{kind="ticket"}'] == 5
    assert seen['claimsvc_queues_stopped{reason="paused"}'] == 1
    assert seen['claimsvc_queues_stopped{reason="unavailable"}'] == 0
    assert seen['claimsvc_tickets_total{coupon="spring",end="expired"}'] == 0
    assert seen["claimsvc_queues_sampled_timestamp_seconds"] == pytest.approx(datetime.now(UTC).timestamp(), abs=5)


def test_a_queue_that_is_empty_is_shown_as_empty(metrics: Metrics) -> None:
    metrics.queues_sampled([status(dead=1)])
    metrics.queues_sampled([])
    seen = lines(metrics)
    assert seen['claimsvc_tickets_waiting{coupon="spring"}'] == 0
    assert seen['claimsvc_ticket_longest_wait_ratio{coupon="spring"}'] == 0
    assert seen['claimsvc_dead_letters{kind="ticket"}'] == 0


def test_queues_without_a_label_are_added_up_and_the_worst_of_them_counts(metrics: Metrics) -> None:
    for number in range(100):
        for _ in range(3):
            metrics.coupons.count(f"coupon-{number}")
    metrics.queues_sampled([status("a", dispatched_at=ago(20)), status("b", waiting=5, oldest_joined_at=ago(60))])
    seen = lines(metrics)
    assert seen['claimsvc_tickets_waiting{coupon="other"}'] == 12
    assert seen['claimsvc_ticket_longest_wait_seconds{coupon="other"}'] == pytest.approx(60, abs=5)
    assert seen['claimsvc_queue_stalled_seconds{coupon="other"}'] == pytest.approx(20, abs=5)
    assert of_coupon(seen, "a") == of_coupon(seen, "b") == []


def test_a_coupon_that_loses_its_label_keeps_no_series_of_its_queue(metrics: Metrics) -> None:
    metrics.queues_sampled([status("spring")])
    metrics.ticket_started("spring", 1.0)
    metrics.ticket_ended("spring", TicketState.CLAIMED)
    for number in range(99):
        for _ in range(3):
            metrics.coupons.count(f"coupon-{number}")
    for _ in range(200):
        metrics.coupons.count("hot")
    assert "spring" not in metrics.coupons
    metrics.queues_sampled([status("spring")])
    assert of_coupon(lines(metrics), "spring") == []
    assert lines(metrics)['claimsvc_tickets_waiting{coupon="other"}'] == 7


_WORKER = """
import sys
from claimsvc.observability.metrics import Metrics
from tests.observability.metrics.test_queues import status

metrics = Metrics()
for sample in sys.argv[1:]:
    metrics.queues_sampled([status("spring", waiting=int(sample))] if int(sample) else [])
print(metrics.render()[0].decode())
"""


def test_workers_that_sample_the_same_queues_do_not_add_them_up(tmp_path: Path) -> None:
    """Nor does one that has ended say how it was when it did: the supervisor removes its file."""

    def worker(*samples: int) -> dict[str, float]:
        environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
        command = [sys.executable, "-c", _WORKER, *map(str, samples)]
        return parsed(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)

    waiting = 'claimsvc_tickets_waiting{coupon="spring"}'
    assert worker(9)[waiting] == 9
    assert worker(4)[waiting] == 4
    assert worker(6, 0)[waiting] == 0
    [first, *_] = sorted(tmp_path.glob("gauge_livemostrecent_*.db"))
    assert first.name.startswith("gauge_live"), "prometheus_client's mark_process_dead removes it"


@pytest.mark.parametrize("stopped", [QueueStop.PAUSED, QueueStop.NOT_STARTED, QueueStop.SOLD_OUT])
def test_a_queue_that_is_meant_to_stand_still_is_not_stalled(stopped: QueueStop) -> None:
    still = status(dispatched_at=ago(500), oldest_joined_at=ago(400))
    assert still.stalled_seconds(datetime.now(UTC)) == pytest.approx(400, abs=5)
    assert replace(still, stopped=stopped).stalled_seconds(datetime.now(UTC)) == 0


def test_a_queue_is_stalled_since_its_last_start_or_since_its_first_ticket_came() -> None:
    now = datetime.now(UTC)
    assert status(oldest_joined_at=ago(400), dispatched_at=ago(20)).stalled_seconds(now) == pytest.approx(20, abs=5)
    assert status(oldest_joined_at=ago(20), dispatched_at=ago(400)).stalled_seconds(now) == pytest.approx(20, abs=5)
    assert status(oldest_joined_at=ago(20), dispatched_at=None).stalled_seconds(now) == pytest.approx(20, abs=5)
    assert status(waiting=0, oldest_joined_at=None, dispatched_at=ago(400)).stalled_seconds(now) == 0
    # What stops it by itself is no excuse: it goes on within seconds, or somebody has to look.
    unavailable = status(dispatched_at=ago(20), stopped=QueueStop.UNAVAILABLE)
    assert unavailable.stalled_seconds(now) == pytest.approx(20, abs=5)


def test_times_that_a_clock_ahead_has_made_are_not_negative() -> None:
    now = datetime.now(UTC)
    ahead = status(oldest_joined_at=now + timedelta(seconds=2), dispatched_at=now + timedelta(seconds=2))
    assert ahead.waited_seconds(now) == ahead.stalled_seconds(now) == 0


def test_a_claim_that_is_queued_is_decided_and_neither_sold_nor_failed(metrics: Metrics) -> None:
    ticket = Ticket("0190", "spring", "ada", TicketState.WAITING, NOW)
    for outcome in (Queued(ticket), QueueFull(3), LeaseLost(), WaitsForUnits()):
        metrics.claim_ended("spring", StrategyName.REDLOCK, outcome, 0.01)
    totals = read_totals(metrics)
    numbers = totals.coupons["spring"]
    expected = dict.fromkeys(("queued", "queue-full", "lease-lost", "waits-for-units"), 1)
    assert {name: count for name, count in numbers.items() if count} == expected
    # Nobody gets an answer by the last two: who has the lease now decides, or the ticket waits on.
    assert totals.process["decided"] == 2
    assert totals.process["slow"] == 0
    seen = lines(metrics)
    labels = 'coupon="spring",outcome="{}",strategy="redlock"'
    assert seen[f"claimsvc_claims_total{{{labels.format('claimed')}}}"] == 0
    assert seen[f"claimsvc_claims_total{{{labels.format('internal-error')}}}"] == 0
