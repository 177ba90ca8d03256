"""The process metrics of an instance with several workers."""

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

_CPU = "process_cpu_seconds"
_STARTED = "process_start_time_seconds"


class WorkersCollector(Collector):
    """The metrics of `ProcessCollector`, summed over all workers and their supervisor.

    The CPU time includes that of workers that have ended, so that it never decreases. The start time is that of the
    youngest process.

    Args:
        folder: where the workers store their values. The supervisor removes the gauges of a worker that has ended.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterator[Metric]:
        figures: dict[str, list[float]] = defaultdict(list)
        texts: dict[str, str] = {}
        supervisor = os.getppid()
        for pid in {supervisor, *self._workers()}:
            for family in ProcessCollector(pid=lambda pid=pid: pid, registry=None).collect():  # type: ignore[misc]
                texts[family.name] = family.documentation
                figures[family.name] += [sample.value for sample in family.samples]
        if _CPU in figures:
            figures[_CPU].append(_cpu_of_children_that_ended(supervisor))
        for name, values in figures.items():
            family_type = CounterMetricFamily if name == _CPU else GaugeMetricFamily
            yield family_type(name, texts[name], value=max(values) if name == _STARTED else sum(values))

    def _workers(self) -> set[int]:
        return {int(path.stem.rpartition("_")[2]) for path in self._folder.glob("gauge_live*.db")}


def _cpu_of_children_that_ended(pid: int) -> float:
    """Return seconds, from the fields cutime and cstime of /proc/PID/stat; see proc_pid_stat(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")
