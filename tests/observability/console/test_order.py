"""In which order the sentence is chosen, when a cause is named, and that it does not come and go; without servers."""

import re
import time
from pathlib import Path
from typing import Any

import pytest

from claimsvc.application.readiness import Check
from claimsvc.domain import RowHolder
from claimsvc.jobs import loop
from claimsvc.observability.console import objectives, shares
from claimsvc.observability.console.diagnosis import Diagnosis, judge
from claimsvc.observability.console.events import Event
from claimsvc.observability.console.health import DependencyState, HealthWatch
from claimsvc.observability.console.membership import Heard
from claimsvc.observability.console.objectives import ObjectiveFigures, ObjectiveHistory
from claimsvc.observability.console.summary import Recent
from claimsvc.observability.console.verdict import Scene
from claimsvc.observability.metrics import LATENCY_BOUNDS, SLOW_SECONDS, Metrics, Numbers, Totals, read_totals
from tests.observability.console.summaries import TAKES_TURNS, down, healthy, heard, picture, verdict

AN_HOUR: Numbers = {"requests": 10_000, "failed": 300, "decided": 9_700}
BURNS = ObjectiveFigures(dict.fromkeys(("5m", "30m", "1h", "6h"), AN_HOUR), failed_at=time.time())
SLOW_BURNS = ObjectiveFigures({window: {"decided": 1000.0, "slow": 200.0} for window in ("5m", "30m", "1h", "6h")})
SLOW: Numbers = {"decided": 100, "slow": 20, "requests": 100, "transactions": 10, "transaction_seconds": 2.5}
FAILS = {"spring": {**TAKES_TURNS, "unavailable": 40}}


def at_14(minute: int) -> float:
    return time.mktime((2026, 5, 1, 14, minute, 0, 0, 0, 0)) - time.timezone


def test_not_ready_comes_first_whatever_else_is_true() -> None:
    everything: dict[str, Any] = {
        "health": healthy(postgresql=at_14(3)),
        "objectives": BURNS,
        "process": SLOW,
        "masters": down("b"),
    }
    said = verdict(heard("here", FAILS, **everything), heard("there", FAILS, **everything))
    assert said.level == "bad"
    assert re.fullmatch(r"Not ready: PostgreSQL does not answer since \d\d:03:00 UTC\.", said.text)
    assert said.evidence == "What it says: it is gone."
    assert said.since == at_14(3)
    assert "claimsvc doctor" in said.advice


@pytest.mark.parametrize(
    ("ready", "level", "words"),
    [
        pytest.param([False], "bad", "Not ready: PostgreSQL does not answer", id="one of one"),
        pytest.param([True, False, False], "bad", "b and c are not ready", id="most"),
        pytest.param([True, False, True], "warning", "b is not ready", id="some"),
    ],
)
def test_who_is_not_ready_is_said(ready: list[bool], level: str, words: str) -> None:
    instances = [
        heard(name, health=healthy() if is_ready else healthy(postgresql=at_14(3)))
        for name, is_ready in zip("abc", ready, strict=False)
    ]
    said = verdict(*instances)
    assert said.level == level
    assert said.text.startswith(words)


def test_a_postgresql_that_answers_is_not_said_to_be_dead() -> None:
    for why, words in (
        ("every connection of the pool is in use", "every connection to PostgreSQL is in use"),
        ("the database's schema is at revision 0019", "the database's schema is too old"),
        (
            "all of its connections are in use (sorry, too many clients already)",
            "PostgreSQL refuses this service: all of its connections are in use",
        ),
        ("no server listens at its host and port (Connection refused)", "PostgreSQL does not answer"),
    ):
        state = DependencyState(False, at_14(3), at_14(4), why)
        assert f"Not ready: {words} since" in verdict(heard("here", health={"postgresql": state})).text


def test_failing_comes_next_with_the_objectives_own_figures_and_the_reason() -> None:
    said = verdict(heard("here", FAILS, objectives=BURNS, process=SLOW))
    assert said.text.startswith("Claims fail. 40 claims a second fail, because a dependency")
    assert said.evidence.endswith(
        "Answered with a 5xx: 3 % of the last 5 minutes and 3 % of the last hour; the objective allows 0.1 %, and an "
        "alert pages."
    )
    assert said.level == "bad"


def test_while_a_page_fires_for_what_has_ended_nothing_else_is_said() -> None:
    ended = ObjectiveFigures(BURNS.windows, failed_at=time.time() - 60)
    said = verdict(heard("here", {"spring": {"claimed": 500}}, objectives=ended))
    assert said.level == "warning"
    assert re.match(
        r"Claims failed until (59|60|61) s ago, often enough that an alert pages. That has ended.", said.text
    )
    assert "The alert ends when the last 5 minutes" in said.advice


def test_what_an_instance_failed_before_it_fell_silent_still_counts() -> None:
    ended = ObjectiveFigures(BURNS.windows, failed_at=time.time() - 5)
    seen = picture(heard("here"), heard("there", objectives=ended, silent_seconds=5.0))
    assert seen.objectives.burning("failed", "requests", objectives.FAILED_ALLOWED) == ("5m", "1h")


def test_a_violated_invariant_pages_for_an_hour_and_is_said_as_long() -> None:
    one = ObjectiveFigures({"1h": {"violations": 1.0}})
    said = verdict(heard("here", objectives=one), heard("there"))
    assert said.text.startswith("1 transaction violated an invariant within the last hour and was rolled back")


def test_slow_comes_after_failing_and_before_contended() -> None:
    both = [heard(name, {"spring": TAKES_TURNS}, process=SLOW) for name in ("here", "there")]
    said = verdict(*both)
    assert said.text == "Claims are slow, because they wait for PostgreSQL: a transaction takes 250 ms."
    assert said.evidence.startswith("20 % of the claims of the last ten seconds took longer than 250 ms; ")
    assert said.level == "warning"
    fast = [heard(name, {"spring": TAKES_TURNS}, process={**SLOW, "slow": 0}) for name in ("here", "there")]
    said = verdict(*fast)
    assert said.text.startswith("spring is contended")
    assert "no action" not in said.advice
    paging = [heard(name, {"spring": TAKES_TURNS}, process={"decided": 100}, objectives=SLOW_BURNS) for name in "ab"]
    assert verdict(*paging).text.startswith("Claims were slow, so often that an alert pages.")


def test_long_turns_are_their_parts_and_not_the_locks() -> None:
    """Two instances wait for each other most of the time, and each turn is a transaction of 100 ms."""
    turns: Numbers = {**TAKES_TURNS, "waits": 5, "wait_seconds": 0.7, "holds": 3, "hold_seconds": 0.3}
    process = {**SLOW, "transactions": 3, "transaction_seconds": 0.28}
    long = [heard(name, {"spring": turns}, process=process) for name in ("here", "there")]
    assert "because they wait for PostgreSQL" in verdict(*long).text
    short: Numbers = {**turns, "holds": 60}
    many = [heard(name, {"spring": short}, process={**process, "transactions": 60}) for name in ("here", "there")]
    assert "because they wait for turns at the lock of spring" in verdict(*many).text


def test_the_lag_is_asked_for_as_often_as_is_reckoned_with() -> None:
    assert loop._LAG_SAMPLE_SECONDS == shares.LAG_SAMPLE_SECONDS


def test_a_late_event_loop_is_the_services_own_time() -> None:
    said = verdict(heard("here", {"spring": TAKES_TURNS}, process={**SLOW, "lag_seconds": 0.7}))
    assert "because the instances are: most of the time is spent in this service" in said.text
    assert "The service's share is 64 %; its event loops wake 233 ms late." in said.evidence
    # A little late is not most of the time.
    assert "PostgreSQL" in verdict(heard("here", {"spring": TAKES_TURNS}, process={**SLOW, "lag_seconds": 0.2})).text


def test_long_turns_that_are_spent_in_the_service_are_its_own_time() -> None:
    turns: Numbers = {**TAKES_TURNS, "waits": 5, "wait_seconds": 0.7, "holds": 3, "hold_seconds": 0.3}
    process = {**SLOW, "transactions": 3, "transaction_seconds": 0.03}
    assert "in this service" in verdict(*(heard(name, {"spring": turns}, process=process) for name in "ab")).text


def test_claims_that_wait_for_ever_are_not_quiet() -> None:
    hung = {"waiting": 5, "pool_in_use": 1, "in_use_seconds": 1.0}
    said = verdict(heard("here", process=hung))
    assert said.text == "Claims are slow, because they wait for PostgreSQL: no transaction has ended."
    assert "5 claims wait, and none was answered." in said.evidence


def test_it_is_quiet_only_if_claims_could_be_made() -> None:
    assert verdict(heard("here")).text == "All is quiet: there are no claims, and it is ready for them."
    assert "being checked" in verdict(heard("here", health={})).text
    assert verdict(heard("here", process={"requests": 3})).text == "3 claims in the last ten seconds; none waits."


def test_who_holds_a_row_is_said_with_all_that_postgresql_tells() -> None:
    holder = RowHolder("spring", 123, "psql", "ada", "10.0.0.5", "idle in transaction", "SELECT 1", 12.4, 3)
    seen = picture(heard("here", FAILS))
    said = judge(seen, None, (holder,))
    assert said.text == (
        "spring: its row in PostgreSQL is held by pid 123 (psql, user ada, from 10.0.0.5) for 12 s, so its claims wait."
    )
    assert said.evidence == "It is idle in transaction. 3 sessions wait for it. Its last statement: SELECT 1"
    assert "pg_terminate_backend(123)" in said.advice
    untold = RowHolder("spring", 123, "", "", "", "", "", None, 1)
    assert "pid 123 (nothing else is known of it), so" in judge(seen, None, (untold,)).text


class Seconds:
    """A diagnosis that is told one second after another."""

    def __init__(self) -> None:
        self.diagnosis = Diagnosis()

    def pass_by(self, *told: Heard, times: int = 1) -> list[str]:
        """What is said at the end of each of so many equal seconds, by its kind."""
        said = []
        for _ in range(times):
            seen = picture(*told)
            self.diagnosis.note(Scene(seen))
            said.append(self.diagnosis.judge(seen, None, ()).kind)
        return said


BLOCKED = [heard(name, {"spring": TAKES_TURNS}, process=SLOW) for name in ("here", "there")]
FREE = [heard("here", {"spring": {"claimed": 5}}, process={"decided": 5, "requests": 5})]


def test_no_cause_is_named_for_less_than_most_of_ten_seconds() -> None:
    seconds = Seconds()
    assert set(seconds.pass_by(*FREE, times=10)) == {"busy"}
    assert set(seconds.pass_by(*BLOCKED, times=5)) == {"busy"}
    assert set(seconds.pass_by(*BLOCKED, times=5)) == {"slow-postgresql"}
    # One free second is no end, and the end is no flicker.
    assert seconds.pass_by(*FREE) == ["busy"]
    assert seconds.pass_by(*BLOCKED) == ["slow-postgresql"]


def test_a_cause_that_comes_and_goes_each_second_is_not_said_in_turns_with_another() -> None:
    seconds = Seconds()
    said: list[str] = []
    for _ in range(20):
        said += seconds.pass_by(*BLOCKED) + seconds.pass_by(*FREE)
    assert set(said) == {"busy"}


def test_equal_coupons_are_said_to_be_several_whichever_is_first_at_the_moment() -> None:
    seconds = Seconds()
    said: list[str] = []
    for number in range(20):
        more = {**TAKES_TURNS, "attempts-busy": 61}
        coupons = {name: more if place == number % 4 else TAKES_TURNS for place, name in enumerate("abcd")}
        said += seconds.pass_by(*(heard(name, coupons, process={"decided": 9}) for name in ("here", "there")))
    assert said == ["busy"] * 5 + ["contended-several"] * 15
    seen = picture(*(heard(name, dict.fromkeys("abcd", TAKES_TURNS)) for name in ("here", "there")))
    assert judge(seen).text == "4 coupons are contended: a, b and c and 1 more. None of them alone is the cause."


def test_the_objectives_have_the_thresholds_and_windows_of_the_alerts() -> None:
    rules = (Path(__file__).parents[3] / "dashboards" / "rules" / "alerts.yml").read_text()
    for alert, figure, allowed in (
        ("ClaimsvcAvailabilityBurnFast", "failed", objectives.FAILED_ALLOWED),
        ("ClaimsvcLatencyBurnFast", "slow", objectives.SLOW_ALLOWED),
    ):
        expression = rules.partition(f"alert: {alert}\n")[2].partition("for:")[0]
        found = re.findall(rf"job:claimsvc_claims_{figure}:ratio_rate(\w+) > ([\d.]+) \* \(1 - ([\d.]+)\)", expression)
        assert {float(objective) for _, _, objective in found} == {1 - allowed}
        burns = [(window, float(times)) for window, times, _ in found]
        assert burns == [(window, times) for short, long, times in objectives.BURNS for window in (short, long)]
        assert f"job:claimsvc_claims_{figure}:increase1h >= {objectives.LEAST_FAILURES}" in expression
    rules = (Path(__file__).parents[3] / "dashboards" / "rules" / "objectives.yml").read_text()
    assert f'le="{SLOW_SECONDS:g}"' in rules
    undecided = re.findall(r'outcome!~"([\w|-]+)"', rules)
    from claimsvc.observability.metrics import totals

    assert {name for names in undecided for name in names.split("|")} == totals._UNDECIDED


def reading(at: float, **process: float) -> Totals:
    return Totals(at, {}, frozenset(), dict(process), [0.0] * len(LATENCY_BOUNDS), {})


def test_each_window_counts_what_grew_in_it_and_nothing_before() -> None:
    history = ObjectiveHistory(lambda: 5000.0)
    for minute in range(121):
        history.add(reading(60.0 * minute, requests=100.0 * minute, failed=float(max(0, minute - 110))))
    figures = history.figures(60.0 * 120)
    assert {window: dict(each) for window, each in figures.windows.items()} == {
        "5m": {"requests": 500, "failed": 5},
        "30m": {"requests": 3000, "failed": 10},
        "1h": {"requests": 6000, "failed": 10},
        "6h": {"requests": 12000, "failed": 10},
    }
    assert (figures.failed_at, figures.slow_at) == (5000.0, 0.0)
    assert figures.burning("failed", "requests", 0.001) is None  # 0.17 % of the hour
    assert figures.burning("failed", "requests", 0.0001) == ("5m", "1h")


def test_requests_and_slow_claims_are_counted_as_prometheus_counts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    metrics = Metrics()
    metrics.expect_requests("POST", "/claim", (201, 503))
    for route, status in (("/claim", 201), ("/claim", 503), ("/claim", 409), ("/other", 500)):
        metrics.observed("POST", route, status, 0.1)
    metrics.claim_duration_by["redlock", "claimed"].observe(0.25)
    metrics.claim_duration_by["redlock", "sold-out"].observe(0.26)
    metrics.claim_duration_by["redlock", "lock-busy"].observe(1.5)
    process = read_totals(metrics).process
    assert (process["requests"], process["failed"], process["decided"], process["slow"]) == (3, 1, 2, 1)


async def test_a_dependency_is_down_after_two_checks_since_the_first() -> None:
    now = 100.0
    broken = False

    async def report() -> dict[str, Check]:
        stopping = {"claimsvc": Check(False, "stopping", "stopping")}
        return stopping | {"postgresql": Check(not broken, "not told", "no server listens" if broken else "")}

    watch = HealthWatch(report, ("postgresql",), lambda: now)
    await watch.check()
    assert watch.states["postgresql"] == DependencyState(True, 100.0, 100.0)
    broken, now = True, 105.0
    await watch.check()
    assert watch.states["postgresql"].is_up
    now = 106.0
    await watch.check()
    assert watch.states["postgresql"] == DependencyState(False, 105.0, 106.0, "no server listens")
    broken, now = False, 107.0
    await watch.check()
    assert watch.states == {"postgresql": DependencyState(True, 107.0, 107.0)}, "an instance that stops is no outage"


def test_a_row_and_its_sentence_have_the_same_figures() -> None:
    """Whatever the last second was: both are of the last ten, and rounded as browsers round."""
    ten = Recent(10.0, {"spring": {**TAKES_TURNS, "wait_seconds": 0.645, "waits": 30}}, {}, {"decided": 9}, {})
    both = [heard(name, {"spring": TAKES_TURNS}, recent=ten) for name in ("here", "there")]
    [row] = picture(*both).coupons
    assert row.waiting_share == 0.662
    assert row.wait_ms == 21.5
    assert "66 % of their time is waiting for its lock (22 ms each time)" in verdict(*both).text


def test_events_are_no_cause() -> None:
    old = [Event(1, time.time() - 25, "gave-up", "spring", 3)]
    assert "That has ended" in verdict(heard("here", {"spring": {"claimed": 5}}, events=old)).text
