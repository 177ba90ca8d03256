"""Reading and adding to prometheus_client's metrics by the private names of their values.

Its public way to read makes an object of each sample, and its public way to observe takes a lock and searches the
buckets for each observation: both cost too much on the claim path. Every private name that the service uses stands in
this file; `tests/test_private_names.py` fails when one of them goes.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.samples import Exemplar


def value_of(metric: Counter | Gauge) -> float:
    """The value of a counter or gauge, or of one of its series."""
    return float(metric._value.get())


def series_of(metric: Counter | Gauge) -> Iterator[tuple[str, float]]:
    """The label and the value of each series of a metric with one label."""
    children: Any = metric._metrics
    for (label,), child in list(children.items()):
        yield label, value_of(child)


def bounds_of(histogram: Histogram) -> Sequence[float]:
    """The upper bounds of the buckets; the last one is infinite."""
    return histogram._upper_bounds


def sum_of(histogram: Histogram) -> float:
    """The sum of everything that was observed."""
    return float(histogram._sum.get())


def bucket_counts_of(histogram: Histogram) -> list[float]:
    """How many observations are in each bucket, those of lower buckets not included."""
    return [bucket.get() for bucket in histogram._buckets]


def add_to(histogram: Histogram, counts: Sequence[int], total: float) -> None:
    """Add many observations at once.

    Args:
        counts: the number of observations in each bucket.
        total: the sum of all observations.
    """
    histogram._sum.inc(total)
    for bucket, observed in zip(histogram._buckets, counts, strict=True):
        if observed:
            bucket.inc(observed)


def set_exemplar(histogram: Histogram, bucket: int, exemplar: Exemplar) -> None:
    """Let a bucket, by its place, show an exemplar."""
    histogram._buckets[bucket].set_exemplar(exemplar)
