"""The pace of a queue: never more starts in a second than its rate, whatever the database's clock does."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claimsvc.domain.pacing import Pace, eta_seconds

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)

rates = st.integers(1, 6)
concurrencies = st.integers(1, 8)
# Microseconds between two looks at a queue, how many claims end until the second, and how many wait.
looks = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 300_000), st.sampled_from([0, 1, 999_999, 1_000_000, 1_000_001, 5_000_000])),
        st.integers(0, 8),
        st.integers(0, 20),
    ),
    max_size=40,
)


def most_within_a_second(starts: list[datetime]) -> int:
    """The most starts in any window of a second, of which one end counts."""
    return max((sum(first <= each < first + SECOND for each in starts) for first in starts), default=0)


def tried_until(pace: Pace, rate: int, now: datetime, clock: timedelta, advanced: timedelta) -> timedelta:
    """For how long nobody is started, where one waits and is looked for each time that the pace names."""
    waited = timedelta(0)
    while waited <= 3 * SECOND:
        # The jump is forgotten after a second.
        pace = pace.at(now + clock + waited, clock_advanced=advanced if waited < SECOND else timedelta(0))
        if pace.allowed(rate, 100, 0):
            return waited
        due_at = pace.free_at(rate, now + clock + waited)
        assert due_at is not None
        assert due_at > now + clock + waited, "it would be looked at again and again"
        waited = due_at - now - clock
    raise AssertionError("it stands still")


@given(rates, concurrencies, looks)
def test_no_second_has_more_starts_than_the_rate_and_no_moment_more_under_way(
    rate: int, concurrency: int, looks: list[tuple[int, int, int]]
) -> None:
    pace, now, under_way = Pace(), NOON, 0
    started: list[datetime] = []
    for pause, ended, waiting in looks:
        now += timedelta(microseconds=pause)
        under_way = max(0, under_way - ended)
        pace = pace.at(now)
        allowed = pace.allowed(rate, concurrency, under_way)
        assert under_way + allowed <= max(concurrency, under_way)
        count = min(allowed, waiting)
        if count:
            pace = pace.started(count, now)
        started += [now] * count
        under_way += count
        assert most_within_a_second(started) <= rate
        assert len(pace.starts) <= rate


@given(rates, looks)
def test_whoever_looks_when_the_pace_says_so_may_start_then_and_not_before(
    rate: int, looks: list[tuple[int, int, int]]
) -> None:
    pace, now = Pace(), NOON
    for pause, _, waiting in looks:
        now += timedelta(microseconds=pause)
        pace = pace.at(now)
        free_at = pace.free_at(rate, now)
        assert (free_at is None) == (pace.allowed(rate, 1, 0) == 1)
        if free_at is not None:
            assert now < free_at <= now + SECOND
            assert pace.at(free_at - timedelta(microseconds=1)).allowed(rate, 1, 0) == 0
            assert pace.at(free_at).allowed(rate, 1, 0) == 1
        pace = pace.started(min(waiting, pace.allowed(rate, rate, 0)), now)


# Jumps that are noticed; smaller ones are taken for a slow answer.
jumps = st.sampled_from([-3600.0, -60.0, -1.5, -0.9, -0.5, -0.3, -0.001, 0.2, 0.3, 0.5, 0.9, 1.5, 60.0, 3600.0])


@given(rates, looks, jumps, st.integers(0, 40))
def test_a_clock_that_is_set_back_or_forward_makes_no_burst_and_no_standstill_of_more_than_a_second(
    rate: int, looks: list[tuple[int, int, int]], jump: float, jumps_before: int
) -> None:
    """Time passes by `now`, and the database's clock says something else since the jump."""
    pace, now, clock = Pace(), NOON, timedelta(0)
    advanced = max(timedelta(seconds=jump), timedelta(0))
    noticed_at: datetime | None = None
    started: list[datetime] = []
    for number, (pause, _, waiting) in enumerate(looks):
        now += timedelta(microseconds=pause)
        if number == jumps_before:
            clock, noticed_at = timedelta(seconds=jump), now
        is_recent = noticed_at is not None and now < noticed_at + SECOND
        pace = pace.at(now + clock, clock_advanced=advanced if is_recent else timedelta(0))
        count = min(waiting, pace.allowed(rate, 100, 0))
        pace = pace.started(count, now + clock)
        started += [now] * count
        assert most_within_a_second(started) <= rate
        if number == jumps_before:
            assert tried_until(pace, rate, now, clock, advanced) <= SECOND


def test_of_claims_that_take_long_no_more_than_the_concurrency_are_begun() -> None:
    assert Pace().allowed(rate=10, concurrency=5, under_way=3) == 2
    assert Pace().allowed(rate=10, concurrency=5, under_way=5) == 0
    # It was lowered meanwhile.
    assert Pace().allowed(rate=10, concurrency=2, under_way=5) == 0


def test_the_pace_of_late_follows_what_is_started() -> None:
    pace, now = Pace(), NOON
    for _ in range(200):
        pace, now = pace.at(now).started(1, now), now + SECOND / 4
    assert pace.per_second == pytest.approx(4, rel=0.1)
    for _ in range(40):
        pace, now = pace.at(now).started(1, now), now + SECOND
    assert pace.per_second == pytest.approx(1, rel=0.1)


@pytest.mark.parametrize(
    ("ahead", "per_second", "rate", "seconds"),
    [(0, 5.0, 10, 0), (20, 5.0, 10, 4), (20, None, 10, 2), (20, 50.0, 10, 2), (3, 0.0, 10, 300)],
)
def test_the_time_until_a_start_is_what_those_before_it_take_at_the_pace_of_late(
    ahead: int, per_second: float | None, rate: int, seconds: float
) -> None:
    assert eta_seconds(ahead, per_second, rate) == seconds
