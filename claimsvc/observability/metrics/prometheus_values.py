"""Access to the values of prometheus_client's metrics by its private names.

The public API creates an object for each sample read, and takes a lock and searches the buckets for each observation.
Both cost too much on the claim path. All private names that the service uses are in this file, and
`tests/test_private_names.py` fails when one of them disappears.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.samples import Exemplar


def value_of(metric: Counter | Gauge) -> float:
    """Return the value of a counter or gauge, or of one of its series."""
    return float(metric._value.get())


def series_of(metric: Counter | Gauge) -> Iterator[tuple[str, float]]:
    """Yield the label and the value of each series of a metric with one label."""
    children: Any = metric._metrics
    for (label,), child in list(children.items()):
        yield label, value_of(child)


def bounds_of(histogram: Histogram) -> Sequence[float]:
    """Return the upper bounds of the buckets; the last one is infinite."""
    return histogram._upper_bounds


def sum_of(histogram: Histogram) -> float:
    """Return the sum of all observations."""
    return float(histogram._sum.get())


def bucket_counts_of(histogram: Histogram) -> list[float]:
    """Return the number of observations in each bucket, not cumulative."""
    return [bucket.get() for bucket in histogram._buckets]


def add_to(histogram: Histogram, counts: Sequence[int], total: float) -> None:
    """Add many observations at once.

    Args:
        histogram: the histogram or one of its series.
        counts: the number of observations in each bucket.
        total: the sum of all observations.
    """
    histogram._sum.inc(total)
    for bucket, observed in zip(histogram._buckets, counts, strict=True):
        if observed:
            bucket.inc(observed)


def set_exemplar(histogram: Histogram, bucket: int, exemplar: Exemplar) -> None:
    """Set the exemplar of a bucket.

    Args:
        histogram: the histogram or one of its series.
        bucket: the index of the bucket.
        exemplar: replaces the current one.
    """
    histogram._buckets[bucket].set_exemplar(exemplar)
