"""Percentiles are by nearest rank, and the histogram's bounds are the same for every run."""

import pytest

from stress_test.latency import Bucket, histogram, percentile, quantiles


@pytest.mark.parametrize(
    ("percent", "expected"), [(5, 15), (30, 20), (40, 20), (50, 35), (95, 50), (99, 50), (100, 50)]
)
def test_a_percentile_is_the_value_of_the_nearest_rank(percent: float, expected: float) -> None:
    assert percentile([15, 20, 35, 40, 50], percent) == expected


def test_of_a_hundred_values_the_percentile_is_the_value_of_that_rank() -> None:
    values = [float(number) for number in range(1, 101)]
    assert [percentile(values, percent) for percent in (1, 50, 95, 99, 100)] == [1, 50, 95, 99, 100]


@pytest.mark.parametrize(("values", "percent"), [([], 50), ([1.0], 0), ([1.0], 100.1)])
def test_a_percentile_of_nothing_or_out_of_range_is_refused(values: list[float], percent: float) -> None:
    with pytest.raises(ValueError, match="percentile"):
        percentile(values, percent)


def test_quantiles_take_values_in_any_order() -> None:
    found = quantiles([0.3, 0.1, 0.2])
    assert found is not None
    assert (found.p50, found.p95, found.p99, found.max) == (0.2, 0.3, 0.3, 0.3)
    assert quantiles([]) is None


def test_the_histogram_counts_up_to_and_with_each_bound() -> None:
    assert histogram([0.001, 0.0011, 0.002, 0.009]) == (
        Bucket(0.001, 1),
        Bucket(0.002, 2),
        Bucket(0.005, 0),
        Bucket(0.01, 1),
    )


def test_the_histogram_holds_every_value_however_small_or_large() -> None:
    assert histogram([]) == ()
    assert histogram([0.0]) == (Bucket(0.0001, 1),)
    assert sum(bucket.count for bucket in histogram([0.0, 0.7, 123.0])) == 3
    assert histogram([123.0]) == (Bucket(200.0, 1),)
