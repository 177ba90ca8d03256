"""Tallies of events on the claim path, which are added to Prometheus's metrics when those are read.

Prometheus's metrics take locks and search their buckets linearly, several times per request. That would cost as much as
the rest of a request.
"""

import asyncio
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.samples import Exemplar

from claimsvc.observability.metrics.busiest import BusiestCoupons
from claimsvc.observability.metrics.prometheus_values import (
    add_to,
    bounds_of,
    bucket_counts_of,
    set_exemplar,
    sum_of,
    value_of,
)

TraceId = Callable[[], str | None]

# With several workers, the maximum delay until a value is in the shared files.
_FLUSH_SECONDS = 0.25


class _Count:
    """The count since the last flush, for one set of labels."""

    __slots__ = ("_child", "_count")

    def __init__(self, child: Counter) -> None:
        self._child = child
        self._count = 0

    def inc(self) -> None:
        self._count += 1

    def total(self) -> float:
        """Return the count since the process started."""
        return value_of(self._child) + self._count

    def flush(self) -> None:
        if self._count:
            count, self._count = self._count, 0
            self._child.inc(count)


class _Distribution:
    """The observations since the last flush, for one set of labels."""

    __slots__ = ("_bounds", "_child", "_counts", "_flushed", "_sum")

    def __init__(self, child: Histogram) -> None:
        self._child = child
        self._bounds = bounds_of(child)
        self._counts = [0] * len(self._bounds)
        self._sum = 0.0
        self._flushed = 0

    def total(self) -> tuple[int, float]:
        """Return the number of observations since the process started, and their sum."""
        return self._flushed + sum(self._counts), sum_of(self._child) + self._sum

    def buckets(self) -> list[float]:
        """Return the number of observations in each bucket since the process started, not cumulative."""
        return [flushed + count for flushed, count in zip(bucket_counts_of(self._child), self._counts, strict=True)]

    def observe(self, amount: float, times: int = 1) -> None:
        # The last bound is infinite, so the index is always valid.
        self._counts[bisect_left(self._bounds, amount)] += times
        self._sum += amount * times

    def flush(self) -> None:
        if count := sum(self._counts):
            self._flushed += count
            add_to(self._child, self._counts, self._sum)
            self._sum = 0.0
            self._counts = [0] * len(self._bounds)


class _Exemplified(_Distribution):
    """A distribution with exemplars: each bucket has the trace id of its latest observation."""

    __slots__ = ("_trace_id",)

    def __init__(self, child: Histogram, trace_id: TraceId) -> None:
        super().__init__(child)
        self._trace_id = trace_id

    def observe(self, amount: float, times: int = 1) -> None:
        super().observe(amount, times)
        if (trace_id := self._trace_id()) is not None:
            exemplar = Exemplar({"trace_id": trace_id}, amount, time.time())
            set_exemplar(self._child, bisect_left(self._bounds, amount), exemplar)


class Tallies(dict[tuple[Any, ...], Any]):
    """The tallies of one metric, by the values of its labels.

    Args:
        metric: to which the tallies are added.
        siblings: returns the labels of series to create with the value 0 together with these. Prometheus does not see
            the first increase of a series that does not exist before it, and would miss the first event.
        trace_id: returns the trace id of the current observation, for exemplars; None without tracing.
    """

    def __init__(
        self,
        metric: Counter | Histogram,
        siblings: Callable[[tuple[Any, ...]], Iterable[tuple[Any, ...]]] = lambda labels: (),
        trace_id: TraceId | None = None,
    ) -> None:
        super().__init__()
        self._metric = metric
        self._siblings = siblings
        self._trace_id = trace_id

    def __missing__(self, labels: tuple[Any, ...]) -> Any:
        for sibling in self._siblings(labels):
            self._metric.labels(*sibling)
        tally = self[labels] = self._new_tally(self._metric.labels(*labels))
        return tally

    def _new_tally(self, child: Counter | Histogram) -> _Count | _Distribution:
        if isinstance(child, Counter):
            return _Count(child)
        return _Distribution(child) if self._trace_id is None else _Exemplified(child, self._trace_id)

    def flush(self) -> None:
        for tally in self.values():
            tally.flush()


class HeldLocks:
    """The coupons whose locks are held now."""

    def __init__(self, gauge: Gauge, coupons: BusiestCoupons) -> None:
        self._gauge = gauge
        self._coupons = coupons
        self._names: set[str] = set()
        self._shown: set[str] = set()

    def add(self, coupon_names: Iterable[str]) -> None:
        self._names.update(coupon_names)

    def remove(self, coupon_names: Iterable[str]) -> None:
        self._names.difference_update(coupon_names)

    def names(self) -> frozenset[str]:
        return frozenset(self._names)

    def forget(self, coupon_name: str) -> None:
        """Note that the coupon's series was removed."""
        self._shown.discard(coupon_name)

    def flush(self) -> None:
        # Labels are assigned here, because a coupon may get or lose its label while its lock is held.
        held = self._coupons.labels(self._names)
        for label in self._shown - held.keys():
            self._gauge.labels(label).set(0)
        for label, count in held.items():
            self._gauge.labels(label).set(count)
        self._shown = set(held)


class Flushed(Protocol):
    """Holds values that must be flushed before they are read."""

    def flush(self) -> None: ...


class Flusher:
    """Flushes all tallies on request, and optionally soon after each change.

    Args:
        tallies: to flush.
        by_itself: flush within 0.25 s after each change, because other workers read the values from files.
    """

    def __init__(self, tallies: Sequence[Flushed], *, by_itself: bool) -> None:
        self._tallies = tallies
        self._by_itself = by_itself
        self._due = False

    def changed(self) -> None:
        if self._by_itself and not self._due:
            self._due = True
            asyncio.get_running_loop().call_later(_FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        self._due = False
        for tallies in self._tallies:
            tallies.flush()
