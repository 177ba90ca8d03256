"""A run as a JSON document. Within one `schema_version`, keys are only added.

A document is an object with these members. `outcomes`, `histogram` and `violations` cover all rounds.

    schema_version      1
    scenario            the scenario's name
    passed              true if no expectation was violated
    parameters          claims (of each coupon, or null), quota (null: one for every claim), coupons, rate
                        (claims per second, null: all at once), duration_seconds (of the schedule, or null),
                        seed, rounds, connections (null: the scenario's own number), timeout_seconds,
                        max_unknown, queue (that of the coupon, or null), late (users who join after a draw),
                        starts_in_seconds (null: at once), grace_seconds
    url, urls           of the first instance; of all of them
    started_at          RFC 3339, UTC
    duration_seconds    of the run, including set-up and read-back
    claims_per_second   finished claims divided by the time from the release to the last of them
    outcomes            by outcome: count, expected (null if the scenario does not fix it), and latency_seconds
                        (p50, p95, p99 by nearest rank, max; null if the outcome was not seen)
    histogram           buckets of latency: upper_seconds, count
    violations          round (from 1), expectation, coupon_name, sentence
    rounds              round, coupon_names, duration_seconds (release to last answer), outcomes (counts),
                        read_back (by coupon: coupon_name, amount, remaining_amount, claims (how many are
                        recorded), claimed_by; null if it failed), tickets (by
                        coupon: how many ended in each state; null without a queue), notes, passed

The scenario `all` gives `{schema_version, scenario: "all", passed, runs: [documents]}`.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from stress_test.latency import Quantiles, histogram, quantiles
from stress_test.runner import Round, Run
from stress_test.verification import ends_of

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class OutcomeRow:
    """One outcome over all rounds. `expected` is None if the scenario does not fix the number."""

    outcome: str
    count: int
    expected: int | None
    latency_seconds: Quantiles | None


def outcome_rows(run: Run) -> list[OutcomeRow]:
    """Return every outcome that was seen or expected, sorted by name."""
    latencies: defaultdict[str, list[float]] = defaultdict(list)
    for attempt in run.attempts:
        latencies[attempt.outcome].append(attempt.latency_seconds)
    expected: Counter[str] = Counter()
    plans = [history.coupon.expected for one in run.rounds for history in one.histories]
    for plan in plans:
        expected.update(plan or {})
    fixed = all(plan is not None for plan in plans)
    return [
        OutcomeRow(
            outcome,
            len(latencies[outcome]),
            expected[outcome] if fixed else None,
            quantiles(latencies[outcome]),
        )
        for outcome in sorted({*latencies, *(outcome for outcome, number in expected.items() if number)})
    ]


def claims_per_second(run: Run) -> float:
    """Return the rate of finished claims over the time of claiming."""
    seconds = sum(one.claiming_seconds for one in run.rounds)
    return len(run.attempts) / seconds if seconds > 0 else 0.0


def _round(number: int, one: Round) -> dict[str, object]:
    counts: Counter[str] = Counter()
    for history in one.histories:
        counts.update(history.counts())
    return {
        "round": number,
        "coupon_names": [history.coupon.name for history in one.histories],
        "duration_seconds": one.claiming_seconds,
        "outcomes": dict(sorted(counts.items())),
        "read_back": [
            None
            if state is None
            else {
                "coupon_name": history.coupon.name,
                "amount": state.amount,
                "remaining_amount": state.remaining_amount,
                "claims": len(state.claims),
                "claimed_by": list(state.claimed_by),
            }
            for history, state in zip(one.histories, one.states, strict=True)
        ],
        "tickets": [None if each is None else dict(sorted(ends_of(each).items())) for each in one.tickets],
        "notes": list(one.notes),
        "passed": not one.violations,
    }


def document(run: Run) -> dict[str, object]:
    """Return the document of one run; see the module's docstring."""
    sizes, target = run.sizes, run.target
    return {
        "schema_version": SCHEMA_VERSION,
        "scenario": run.scenario,
        "passed": not run.violations,
        "parameters": {
            "claims": sizes.claims or None,
            "quota": sizes.quota,
            "coupons": sizes.coupons,
            "rate": sizes.rate or None,
            "duration_seconds": sizes.duration_seconds or None,
            "seed": sizes.seed,
            "rounds": target.rounds,
            "connections": target.connections,
            "timeout_seconds": target.timeout_seconds,
            "max_unknown": target.max_unknown,
            "queue": None if sizes.queue is None else asdict(sizes.queue),
            "late": sizes.late,
            "starts_in_seconds": sizes.starts_in_seconds,
            "grace_seconds": target.grace_seconds,
        },
        "url": target.urls[0],
        "urls": list(target.urls),
        "started_at": run.started_at.isoformat(),
        "duration_seconds": run.duration_seconds,
        "claims_per_second": claims_per_second(run),
        "outcomes": {
            row.outcome: {
                "count": row.count,
                "expected": row.expected,
                "latency_seconds": None if row.latency_seconds is None else asdict(row.latency_seconds),
            }
            for row in outcome_rows(run)
        },
        "histogram": [asdict(bucket) for bucket in histogram([a.latency_seconds for a in run.attempts])],
        "violations": [
            {"round": number, **asdict(violation)}
            for number, one in enumerate(run.rounds, 1)
            for violation in one.violations
        ],
        "rounds": [_round(number, one) for number, one in enumerate(run.rounds, 1)],
    }


def document_of_all(runs: Sequence[Run]) -> dict[str, object]:
    """Return the document of the scenario `all`."""
    return {
        "schema_version": SCHEMA_VERSION,
        "scenario": "all",
        "passed": not any(run.violations for run in runs),
        "runs": [document(run) for run in runs],
    }
