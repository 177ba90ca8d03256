"""`claimsvc probe` as a process of its own, which Prometheus can scrape."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from claimsvc.embedded import free_port
from tests.support.admin import ADMIN_KEY


@contextmanager
def prober(url: str, folder: Path, *, every_seconds: float) -> Iterator[int]:
    """Probe a service until this is left; the port of the metrics.

    Args:
        url: of the service or its load balancer.
        folder: for its output.
        every_seconds: between two probes.
    """
    port = free_port()
    arguments = ["--every", f"{every_seconds:g}", "--listen", str(port)]
    with (folder / "probe.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "claimsvc", "probe", url, *arguments],
            env={**os.environ, "CLAIMSVC_PROBE_KEY": ADMIN_KEY},
            stdout=log,
            stderr=log,
        )
    try:
        yield port
    finally:
        process.kill()
        process.wait()
