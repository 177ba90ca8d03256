"""What is counted for every claim, batch and request: added up here, and given to Prometheus's objects when they are
read.

Those take locks and search their buckets one by one, several times for each request, which costs as much as the rest of
an answer does.
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

# With several workers, how long a figure may be missing from the files that they share.
_FLUSH_SECONDS = 0.25


class _Count:
    """What was counted since the last flush, for one set of labels."""

    __slots__ = ("_child", "_count")

    def __init__(self, child: Counter) -> None:
        self._child = child
        self._count = 0

    def inc(self) -> None:
        self._count += 1

    def total(self) -> float:
        """What was counted since this process started."""
        return value_of(self._child) + self._count

    def flush(self) -> None:
        if self._count:
            count, self._count = self._count, 0
            self._child.inc(count)


class _Distribution:
    """What was observed since the last flush, for one set of labels."""

    __slots__ = ("_bounds", "_child", "_counts", "_flushed", "_sum")

    def __init__(self, child: Histogram) -> None:
        self._child = child
        self._bounds = bounds_of(child)
        self._counts = [0] * len(self._bounds)
        self._sum = 0.0
        self._flushed = 0

    def total(self) -> tuple[int, float]:
        """How many were observed since this process started, and their sum."""
        return self._flushed + sum(self._counts), sum_of(self._child) + self._sum

    def buckets(self) -> list[float]:
        """How many were observed since this process started, up to each bound and above the one before."""
        return [flushed + count for flushed, count in zip(bucket_counts_of(self._child), self._counts, strict=True)]

    def observe(self, amount: float, times: int = 1) -> None:
        # The last bound is infinite, so there always is one that is not less.
        self._counts[bisect_left(self._bounds, amount)] += times
        self._sum += amount * times

    def flush(self) -> None:
        if count := sum(self._counts):
            self._flushed += count
            add_to(self._child, self._counts, self._sum)
            self._sum = 0.0
            self._counts = [0] * len(self._bounds)


class _Exemplified(_Distribution):
    """A distribution of which each bucket shows the last trace that was observed in it."""

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
        metric: gets what is tallied.
        siblings: which series are there, with 0, once these labels are. Prometheus cannot see the increase of a series
            that begins with it, so the first of the events that matter would be missed.
        trace_id: the trace of what is being observed, for exemplars; None where nothing is traced.
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
        tally = self[labels] = self._made(self._metric.labels(*labels))
        return tally

    def _made(self, child: Counter | Histogram) -> _Count | _Distribution:
        if isinstance(child, Counter):
            return _Count(child)
        return _Distribution(child) if self._trace_id is None else _Exemplified(child, self._trace_id)

    def flush(self) -> None:
        for tally in self.values():
            tally.flush()


class HeldLocks:
    """Which coupons' locks are held now."""

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
        """The coupon has no series any more."""
        self._shown.discard(coupon_name)

    def flush(self) -> None:
        # By names until now: a coupon may get its label, or lose it, while its lock is held.
        held = self._coupons.labels(self._names)
        for label in self._shown - held.keys():
            self._gauge.labels(label).set(0)
        for label, count in held.items():
            self._gauge.labels(label).set(count)
        self._shown = set(held)


class Flushed(Protocol):
    """What keeps figures back until they are read."""

    def flush(self) -> None: ...


class Flusher:
    """Flushes all tallies: when asked, and where others read the figures from files, soon after each change.

    Args:
        by_itself: whether to flush without being asked.
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
