"""Probes again and again, and the metrics that tell of them."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from claimsvc.prober.probe import Probe, Prober, Verdict


class ProbeMetrics:
    """What Prometheus scrapes of a prober. `target` is the URL that is probed.

    Args:
        target: see above.
    """

    def __init__(self, target: str) -> None:
        self._registry = registry = CollectorRegistry()
        self._target = target

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, ["target"], namespace="claimsvc", registry=registry)

        self._success = gauge("probe_success", "1 if the last probe's claim was made and returned, else 0.")
        self._seconds = gauge("probe_duration_seconds", "How long the answer to the last probe's claim took.")
        self._ended_at = gauge("probe_ended_timestamp_seconds", "When the last probe ended (Unix seconds).")
        self._probes = Counter("probes_total", "Probes.", ["target", "result"], namespace="claimsvc", registry=registry)
        for verdict in Verdict:
            self._probes.labels(target, verdict.value)

    def serve(self, host: str, port: int) -> int:
        """Answer `/metrics` on a port, in a thread. Returns the port; raises OSError if it cannot be used."""
        server, _ = start_http_server(port, host, registry=self._registry)
        return int(server.server_port)

    def ended(self, probe: Probe) -> None:
        """Tell of a probe."""
        self._success.labels(self._target).set(probe.verdict is Verdict.CLAIMED)
        self._seconds.labels(self._target).set(probe.seconds)
        self._ended_at.labels(self._target).set(time.time())
        self._probes.labels(self._target, probe.verdict.value).inc()


async def probe_repeatedly(
    prober: Prober, *, every_seconds: float, metrics: ProbeMetrics, tell: Callable[[str], None]
) -> None:
    """Probe until cancelled; one probe at a time.

    Args:
        prober: makes the probes.
        every_seconds: from the start of one probe to the start of the next. A probe that takes longer is followed by
            the next at once.
        metrics: told of each probe.
        tell: gets a line for the first probe, and for each with another verdict or other words than the one before.
    """
    clock, told = asyncio.get_running_loop().time, ""
    while True:
        due_at = clock() + every_seconds
        probe = await prober.probe()
        metrics.ended(probe)
        # The words of a failure contain the request's id: only the verdict tells whether anything has changed.
        if probe.verdict != told:
            tell(f"{datetime.now(UTC).isoformat(timespec='seconds')} {in_words(probe)}")
        told = probe.verdict
        await asyncio.sleep(max(0.0, due_at - clock()))


def in_words(probe: Probe) -> str:
    """The result of a probe on one line."""
    return f"{probe.verdict.value:<8} {probe.detail} ({probe.seconds * 1000:.0f} ms)"
