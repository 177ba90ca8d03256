"""The objectives' figures of this instance over the windows of the burn-rate alerts, and when those alerts page.

`dashboards/rules` has the same thresholds for Prometheus, and a test compares them. What is missing here are instances
that have ended: Prometheus remembers them, and this does not.
"""

import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from claimsvc.observability.metrics import Totals

# Allowed shares: of requests that fail, and of decided claims that are slow.
FAILED_ALLOWED = 0.001
SLOW_ALLOWED = 0.01
# Of the budget, so many times its usual rate, in both windows: an alert pages.
BURNS = (("5m", "1h", 14.4), ("30m", "6h", 6.0))
LEAST_FAILURES = 10
WINDOWS = {"5m": 300.0, "30m": 1800.0, "1h": 3600.0, "6h": 21600.0}
WORDS = {"5m": "last 5 minutes", "30m": "last 30 minutes", "1h": "last hour", "6h": "last 6 hours"}

_SAMPLE_SECONDS = 10.0
_FIGURES = ("requests", "failed", "decided", "slow", "violations")


@dataclass(frozen=True, slots=True)
class ObjectiveFigures:
    """What has grown in each window.

    Args:
        windows: by window, `requests`, `failed`, `decided`, `slow` and `violations`; missing figures are 0.
        failed_at, slow_at: when a request last failed or a claim was slow (seconds since 1970); 0 if never.
    """

    windows: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    failed_at: float = 0.0
    slow_at: float = 0.0

    def share(self, window: str, figure: str, of: str) -> float:
        """Return a share, such as of `failed` in `requests`; 0 if there were none."""
        figures = self.windows.get(window, {})
        total = figures.get(of, 0.0)
        return figures.get(figure, 0.0) / total if total else 0.0

    def burning(self, figure: str, of: str, allowed: float) -> tuple[str, str] | None:
        """Return the two windows whose shares make the alert page, or None.

        Args:
            figure, of: see `share`.
            allowed: the share that the objective allows.
        """
        if self.windows.get("1h", {}).get(figure, 0.0) < LEAST_FAILURES:
            return None
        for short, long, times in BURNS:
            if all(self.share(window, figure, of) > times * allowed for window in (short, long)):
                return short, long
        return None


def add_up_objectives(each: Iterable[ObjectiveFigures]) -> ObjectiveFigures:
    """Add up the figures of several instances."""
    windows: dict[str, dict[str, float]] = {}
    failed_at = slow_at = 0.0
    for one in each:
        failed_at, slow_at = max(failed_at, one.failed_at), max(slow_at, one.slow_at)
        for window, figures in one.windows.items():
            total = windows.setdefault(window, {})
            for figure, value in figures.items():
                total[figure] = total.get(figure, 0.0) + value
    return ObjectiveFigures(windows, failed_at, slow_at)


class ObjectiveHistory:
    """Samples of this instance's figures, of the last six hours.

    Args:
        wall_clock: seconds since 1970.
    """

    def __init__(self, wall_clock: Callable[[], float] = time.time) -> None:
        self._wall_clock = wall_clock
        most = int(max(WINDOWS.values()) / _SAMPLE_SECONDS) + 2
        self._times: deque[float] = deque(maxlen=most)
        self._samples: deque[tuple[float, ...]] = deque(maxlen=most)
        self._last: tuple[float, ...] | None = None
        self._failed_at = self._slow_at = 0.0

    def add(self, totals: Totals) -> None:
        """Add a reading. A process starts with zeros."""
        now = tuple(totals.process.get(name, 0.0) for name in _FIGURES)
        last = self._last or (0.0,) * len(_FIGURES)
        if now[1] > last[1]:
            self._failed_at = round(self._wall_clock(), 1)
        if now[3] > last[3]:
            self._slow_at = round(self._wall_clock(), 1)
        if not self._times:
            self._times.append(totals.at)
            self._samples.append((0.0,) * len(_FIGURES))
        elif totals.at - self._times[-1] >= _SAMPLE_SECONDS:
            self._times.append(totals.at)
            self._samples.append(now)
        self._last = now

    def figures(self, at: float) -> ObjectiveFigures:
        """Return the growth in each window until now, `at` in monotonic seconds."""
        if self._last is None:
            return ObjectiveFigures()
        windows = {}
        for window, seconds in WINDOWS.items():
            # The last sample that is not younger than the window; the first one if all are.
            place = max(0, bisect_right(self._times, at - seconds) - 1)
            grown = zip(_FIGURES, self._last, self._samples[place], strict=True)
            windows[window] = {name: now - then for name, now, then in grown if now > then}
        return ObjectiveFigures(windows, self._failed_at, self._slow_at)
