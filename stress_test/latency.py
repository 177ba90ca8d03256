"""Quantiles and a histogram of latencies, in seconds."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from math import ceil


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the nearest-rank percentile: the smallest value that at least `percent` of all values do not exceed.

    It is always a measured value, not interpolated. With n values it is the one of rank ceil(percent / 100 * n),
    counted from 1.

    Args:
        ordered: the values in ascending order.
        percent: above 0, at most 100.

    Raises:
        ValueError: there are no values, or `percent` is out of range.
    """
    if not ordered or not 0 < percent <= 100:
        raise ValueError("a percentile needs values, and a percentage above 0 and at most 100")
    return ordered[ceil(percent * len(ordered) / 100) - 1]


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Quantiles of latencies, in seconds."""

    p50: float
    p95: float
    p99: float
    max: float


def quantiles(latencies_seconds: Sequence[float]) -> Quantiles | None:
    """Compute the quantiles of latencies in any order; None if there are none."""
    if not latencies_seconds:
        return None
    ordered = sorted(latencies_seconds)
    return Quantiles(
        p50=percentile(ordered, 50), p95=percentile(ordered, 95), p99=percentile(ordered, 99), max=ordered[-1]
    )


@dataclass(frozen=True, slots=True)
class Bucket:
    """The number of latencies above the previous bucket's bound, up to and including `upper_seconds`."""

    upper_seconds: float
    count: int


def histogram(latencies_seconds: Sequence[float]) -> tuple[Bucket, ...]:
    """Count latencies in buckets with the fixed bounds 0.1 ms, 0.2 ms, 0.5 ms, 1 ms, 2 ms, 5 ms, …

    Fixed bounds make runs comparable. Empty buckets are omitted only before the first and after the last non-empty
    one. A latency of zero or less counts in the first bucket.
    """
    if not latencies_seconds:
        return ()
    slowest = max(latencies_seconds)
    bounds: list[float] = []
    for bound in _one_two_five():
        bounds.append(bound)
        if bound >= slowest:
            break
    counts = [0] * len(bounds)
    for latency in latencies_seconds:
        counts[bisect_left(bounds, latency)] += 1
    first = next(index for index, number in enumerate(counts) if number)
    return tuple(Bucket(bound, number) for bound, number in zip(bounds[first:], counts[first:], strict=True))


def _one_two_five() -> Iterator[float]:
    for exponent in count(-4):
        for digit in (1, 2, 5):
            # From text, because 5 * 10**-4 is a different float than 0.0005.
            yield float(f"{digit}e{exponent}")
