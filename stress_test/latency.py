"""Quantiles and a histogram of latencies, in seconds."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from math import ceil


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile: the smallest value that at least `percent` of all values do not exceed.

    It is always a value that was measured, never one between two of them. With n values it is the one of rank
    ceil(percent / 100 * n), counted from 1.

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
    """The latencies of one kind of answer, in seconds."""

    p50: float
    p95: float
    p99: float
    max: float


def quantiles(latencies_seconds: Sequence[float]) -> Quantiles | None:
    """The quantiles of a set of latencies in any order; None if there are none."""
    if not latencies_seconds:
        return None
    ordered = sorted(latencies_seconds)
    return Quantiles(
        p50=percentile(ordered, 50), p95=percentile(ordered, 95), p99=percentile(ordered, 99), max=ordered[-1]
    )


@dataclass(frozen=True, slots=True)
class Bucket:
    """How many latencies lie above the bucket before and at or below `upper_seconds`."""

    upper_seconds: float
    count: int


def histogram(latencies_seconds: Sequence[float]) -> tuple[Bucket, ...]:
    """Count latencies into the fixed bounds 0.1 ms, 0.2 ms, 0.5 ms, 1 ms, 2 ms, 5 ms, … without end.

    Fixed bounds let two runs be compared by eye. Empty buckets are left out only before the first and after
    the last one with something in it. A latency of zero or less counts into the first bucket.
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
            # Through text, because 5 * 10**-4 is not the float that 0.0005 is.
            yield float(f"{digit}e{exponent}")
