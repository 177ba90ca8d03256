"""Which coupons have a label, what the wrapper tells of a claim, and what the metrics make of what they are told."""

import asyncio
import os
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from claimsvc import domain
from claimsvc.domain import (
    ClaimOptions,
    ClaimOutcome,
    Coupon,
    Ended,
    KeyReused,
    NotEligible,
    NotStarted,
    Outcome,
    Paused,
    Refusal,
    SoldOut,
    StrategyName,
    UnknownCoupon,
)
from claimsvc.domain.outcomes import name_of, refusals, rows
from claimsvc.errors import LockBusyError
from claimsvc.observability.metrics import MeteredStrategy, Metrics
from claimsvc.observability.metrics.busiest import OTHER, BusiestCoupons
from claimsvc.observability.metrics.workers import WorkersCollector
from claimsvc.ports import PendingOutcome


def test_coupons_beyond_the_capacity_share_one_label() -> None:
    coupons = BusiestCoupons(capacity=3)
    labels = {coupons.count(f"coupon-{i}") for i in range(10_000)}
    assert len(labels) == 4
    assert OTHER in labels


def test_a_coupon_that_becomes_busy_gets_the_label_of_one_that_is_not() -> None:
    coupons = BusiestCoupons(capacity=3)
    for name in ("a", "b", "c"):
        coupons.count(name)
    for _ in range(200):
        coupons.count("hot")
    assert coupons.label("hot") == "hot"
    assert len(coupons.names()) == 3


def test_labels_are_handed_on_a_bounded_number_of_times() -> None:
    coupons = BusiestCoupons(capacity=2, replacements=5)
    given = {coupons.count(f"coupon-{i // 1000}") for i in range(100_000)}
    assert len(given) <= 2 + 5 + 1


class Answering:
    """A strategy with one answer for everybody."""

    name = StrategyName.REDLOCK

    def __init__(self, answer: ClaimOutcome | Exception) -> None:
        self._answer = answer

    def claim(self, coupon_name: str, user_id: str, options: ClaimOptions | None = None) -> PendingOutcome:
        answer = PendingOutcome()
        if isinstance(self._answer, Exception):
            answer.set_exception(self._answer)
        else:
            answer.set_result(self._answer)
        return answer

    async def drain(self) -> None:
        pass


async def test_every_outcome_is_counted_under_its_name() -> None:
    metrics = Metrics()
    await MeteredStrategy(Answering(SoldOut()), metrics).claim("spring", "ada")
    with pytest.raises(LockBusyError):
        await MeteredStrategy(Answering(LockBusyError("busy")), metrics).claim("spring", "ada")
    with pytest.raises(ZeroDivisionError):
        await MeteredStrategy(Answering(ZeroDivisionError()), metrics).claim("spring", "ada")
    await asyncio.sleep(0)
    exposition = metrics.render()[0].decode()
    for outcome in ("sold-out", "lock-busy", "internal-error"):
        line = f'claimsvc_claims_total{{coupon="spring",outcome="{outcome}",strategy="redlock"}} 1.0'
        assert line in exposition
        assert f'claimsvc_claim_duration_seconds_count{{outcome="{outcome}",strategy="redlock"}} 1.0' in exposition


def test_every_outcome_has_a_row_with_a_name_of_its_own() -> None:
    names = [row.name for _, row in rows()]
    assert len(set(names)) == len(names)
    declared = {kind for kind in vars(domain).values() if isinstance(kind, type) and issubclass(kind, Outcome)}
    declared -= {Outcome, ClaimOutcome, Refusal}
    assert declared == {kind for kind, _ in rows()}
    assert {kind for kind in declared if issubclass(kind, Refusal)} == {kind for kind, _ in refusals()}


@pytest.mark.parametrize(
    "outcome", [Paused(), Ended(), NotStarted(datetime.now(UTC), 1.0), NotEligible(()), KeyReused()]
)
def test_a_coupon_that_is_not_open_is_no_failure(metrics: Metrics, outcome: ClaimOutcome) -> None:
    metrics.claim_ended("spring", "redlock", outcome, 0.1)
    exposition = metrics.render()[0].decode()
    [failed] = re.findall(r'claims_total{coupon="[^"]+",outcome="internal-error",strategy="redlock"} (\S+)', exposition)
    assert float(failed) == 0
    assert f'outcome="{name_of(outcome)}",strategy="redlock"}} 1.0' in exposition


async def test_made_up_names_make_no_series() -> None:
    metrics = Metrics()
    strategy = MeteredStrategy(Answering(UnknownCoupon()), metrics)
    for i in range(1000):
        await strategy.claim(f"made-up-{i}", "ada")
        metrics.attempted(f"made-up-{i}", "acquired")
    assert "made-up" not in metrics.render()[0].decode()


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch) -> Metrics:
    """Those of a single worker, that know the coupon `spring`."""
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    known = Metrics()
    known.coupons.count("spring")
    return known


def lines(metrics: Metrics) -> dict[str, float]:
    """The value of each series."""
    exposition = metrics.render()[0].decode()
    return {name: float(value) for name, value in re.findall(r"^(claimsvc_\S+) (\S+)$", exposition, re.MULTILINE)}


def test_what_a_lock_does_is_told_for_its_coupon(metrics: Metrics) -> None:
    metrics.waited(["spring", "made-up", "made-up-too"], "acquired", 0.2)
    metrics.held(["spring"], 0.02)
    metrics.retried("spring")
    metrics.lost("spring")
    seen = lines(metrics)
    assert seen['claimsvc_lock_wait_seconds_count{coupon="spring",result="acquired"}'] == 1
    assert seen['claimsvc_lock_wait_seconds_count{coupon="other",result="acquired"}'] == 2
    assert seen['claimsvc_lock_wait_seconds_bucket{coupon="other",le="0.1",result="acquired"}'] == 0
    assert seen['claimsvc_lock_wait_seconds_bucket{coupon="other",le="0.25",result="acquired"}'] == 2
    assert seen['claimsvc_lock_hold_seconds_sum{coupon="spring"}'] == 0.02
    assert seen['claimsvc_lock_retries_total{coupon="spring"}'] == 1
    assert seen['claimsvc_lock_lost_total{coupon="spring"}'] == 1


def test_a_lock_is_held_from_its_taking_until_it_is_given_back(metrics: Metrics) -> None:
    metrics.taken(["spring", "made-up", "made-up-too"])
    assert lines(metrics)['claimsvc_lock_held{coupon="spring"}'] == 1
    assert lines(metrics)['claimsvc_lock_held{coupon="other"}'] == 2
    metrics.held(["spring", "made-up", "made-up-too"], 0.1)
    assert lines(metrics)['claimsvc_lock_held{coupon="spring"}'] == 0
    assert lines(metrics)['claimsvc_lock_held{coupon="other"}'] == 0


def test_a_lock_that_is_held_while_its_coupon_gets_a_label_is_told_under_that_label(metrics: Metrics) -> None:
    metrics.taken(["autumn"])
    assert lines(metrics)['claimsvc_lock_held{coupon="other"}'] == 1
    metrics.coupons.count("autumn")
    assert lines(metrics)['claimsvc_lock_held{coupon="autumn"}'] == 1
    assert lines(metrics)['claimsvc_lock_held{coupon="other"}'] == 0


def test_a_coupon_that_loses_its_label_keeps_no_series(metrics: Metrics) -> None:
    for i in range(99):
        metrics.coupons.count(f"coupon-{i}")
        metrics.coupons.count(f"coupon-{i}")
    metrics.attempted("spring", "acquired")
    metrics.taken(["spring"])
    metrics.waited(["spring"], "acquired", 0.2)
    metrics.held(["spring"], 0.02)
    metrics.stock_sampled(Coupon("spring", 5, 4, StrategyName.REDLOCK, datetime.now(UTC)))
    metrics.taken(["spring"])
    assert 'claimsvc_lock_held{coupon="spring"}' in lines(metrics)
    for _ in range(200):
        metrics.coupons.count("hot")
    assert "spring" not in metrics.coupons
    assert [name for name in lines(metrics) if "spring" in name] == []
    assert lines(metrics)['claimsvc_lock_held{coupon="other"}'] == 1


def test_what_is_alarming_begins_with_0(metrics: Metrics) -> None:
    """Prometheus sees the increase of a series only from its second sample on."""
    seen = lines(metrics)
    for label in ("spring", "other"):
        assert seen[f'claimsvc_lock_lost_total{{coupon="{label}"}}'] == 0
        assert seen[f'claimsvc_lock_retries_total{{coupon="{label}"}}'] == 0
    metrics.claim_ended("spring", StrategyName.REDLOCK, SoldOut(), 0.1)
    assert lines(metrics)['claimsvc_claims_total{coupon="spring",outcome="lock-busy",strategy="redlock"}'] == 0
    metrics.expect_requests("POST", "/claim", [503])
    assert lines(metrics)['claimsvc_http_requests_total{method="POST",route="/claim",status="503"}'] == 0


def test_a_coupon_whose_lock_is_never_had_is_named_all_the_same(metrics: Metrics) -> None:
    """Or an instance that is starved would hide whom it starves."""
    metrics.claim_ended("autumn", StrategyName.REDLOCK, LockBusyError("busy"), 1.5)
    assert lines(metrics)['claimsvc_claims_total{coupon="autumn",outcome="lock-busy",strategy="redlock"}'] == 1


def test_calls_of_masters_and_lags_of_the_event_loop_are_told(metrics: Metrics) -> None:
    metrics.master_probed("a:6379", True)
    metrics.master_memory("a:6379", 2_000_000, 64_000_000)
    metrics.master_called("a:6379", 0.003)
    metrics.event_loop_lagged(0.03)
    seen = lines(metrics)
    assert seen['claimsvc_redis_master_up{master="a:6379"}'] == 1
    assert seen['claimsvc_redis_memory_bytes{master="a:6379"}'] == 2_000_000
    assert seen['claimsvc_redis_memory_limit_bytes{master="a:6379"}'] == 64_000_000
    assert seen['claimsvc_redis_call_seconds_sum{master="a:6379"}'] == 0.003
    assert seen["claimsvc_event_loop_lag_seconds_count"] == 1


@pytest.mark.parametrize(("limit", "just_after"), [(0.5, 0.51), (1.5, 1.52)])
def test_a_quantile_of_waits_that_end_at_a_limit_is_read_as_hardly_more_than_the_limit(
    metrics: Metrics, limit: float, just_after: float
) -> None:
    metrics.waited(["spring"], "busy", just_after)
    within = [float(bound) for bound, seen in _buckets(metrics, "claimsvc_lock_wait_seconds").items() if seen]
    assert limit < min(within) <= limit + 0.1


def _buckets(metrics: Metrics, histogram: str) -> dict[str, float]:
    found = {
        name.split('le="')[1].split('"')[0]: value
        for name, value in lines(metrics).items()
        if name.startswith(f"{histogram}_bucket")
    }
    assert found
    return found


def test_what_several_workers_use_is_added_up_and_one_that_has_ended_is_passed_over(tmp_path: Path) -> None:
    def figures() -> dict[str, float]:
        return {each.name: each.samples[0].value for each in WorkersCollector(tmp_path).collect()}

    supervisor = figures()
    (tmp_path / f"gauge_livesum_{os.getpid()}.db").touch()
    (tmp_path / "gauge_livesum_4194305.db").touch()  # more than any process id of Linux
    together = figures()
    for name in ("process_cpu_seconds", "process_resident_memory_bytes", "process_open_fds", "process_max_fds"):
        assert together[name] > supervisor[name] >= 0
    assert together["process_start_time_seconds"] >= supervisor["process_start_time_seconds"]


@pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool, of the system package `prometheus`")
def test_prometheus_own_linter_has_nothing_to_say(metrics: Metrics) -> None:
    metrics.claim_ended("spring", StrategyName.REDLOCK, SoldOut(), 0.1)
    metrics.master_called("a:6379", 0.003)
    metrics.waited(["spring"], "acquired", 0.2)
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=metrics.render()[0], capture_output=True, timeout=30, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")
