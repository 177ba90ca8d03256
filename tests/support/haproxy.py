"""The load balancer of docker-compose.yml as a real process: its own configuration, on loopback ports."""

import contextlib
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from claimsvc.embedded import free_port

CONFIGURATION = Path(__file__).parents[2] / "deploy/compose/haproxy.cfg"
PROGRAM = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")

needs_haproxy = pytest.mark.skipif(PROGRAM is None, reason="haproxy is not installed (Debian: apt-get install haproxy)")

_START_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Balancer:
    """A load balancer that runs: where it serves, and where it is watched."""

    url: str
    watch_url: str
    operators_url: str

    def healthy(self) -> bool:
        """What its container's health check asks."""
        with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(f"{self.watch_url}/healthz"):
            return True
        return False

    def server_figure(self, metric: str, server: str) -> float:
        """A figure that it exports about one of the instances."""
        with urllib.request.urlopen(f"{self.watch_url}/metrics") as answer:
            text = answer.read().decode()
        found = re.findall(rf'^{metric}\{{proxy="instances",server="{server}"[^}}]*\}} (\S+)$', text, re.MULTILINE)
        return sum(map(float, found))

    def is_in(self, server: str) -> bool:
        """Whether it sends requests to the instance."""
        with urllib.request.urlopen(f"{self.watch_url}/metrics") as answer:
            text = answer.read().decode()
        label = rf'proxy="instances",server="{server}",state="UP"'
        return re.search(rf"^haproxy_server_status\{{{label}\}} 1$", text, re.MULTILINE) is not None


@contextmanager
def balancer(
    instances: Mapping[str, int],
    folder: Path,
    operators: Mapping[str, int] | None = None,
    ports: tuple[int, int, int] | None = None,
) -> Iterator[Balancer]:
    """Run it before the instances, given by their names in the configuration with their ports on 127.0.0.1.

    Args:
        instances: their public ports. Those beyond the configuration's two get a line like that of `app-2`.
        folder: for files.
        operators: their ports for operators, if they have some.
        ports: where it serves, is watched, and serves operators; free ones by default.
    """
    assert PROGRAM is not None
    port, watch_port, operators_port = ports or (free_port(), free_port(), free_port())
    adapted = folder / "haproxy.cfg"
    adapted.write_text(on_loopback(instances, port, watch_port, operators or instances, operators_port))
    with (folder / "haproxy.log").open("wb") as log:
        process = subprocess.Popen([PROGRAM, "-W", "-db", "-f", adapted], stdout=log, stderr=log)
    running = Balancer(*(f"http://127.0.0.1:{each}" for each in (port, watch_port, operators_port)))
    try:
        _wait_until_listening(running, process, folder / "haproxy.log")
        yield running
    finally:
        process.terminate()
        process.wait(timeout=10)


def on_loopback(
    instances: Mapping[str, int], port: int, watch_port: int, operators: Mapping[str, int], operators_port: int
) -> str:
    """The configuration with other addresses and nothing else changed."""
    text = CONFIGURATION.read_text()
    for name in instances:
        if f"server {name} " not in text:
            text = re.sub(r"^(    server )app-2 app-2(:.*)$", rf"\g<0>\n\1{name} {name}\2", text, flags=re.MULTILINE)
    changes = {"bind :8080": f"bind 127.0.0.1:{port}", "bind :8404": f"bind 127.0.0.1:{watch_port}"}
    changes["bind :8081"] = f"bind 127.0.0.1:{operators_port}"
    changes |= {f" {name}:8080": f" 127.0.0.1:{instances[name]}" for name in instances}
    changes |= {f" {name}:8081": f" 127.0.0.1:{operators[name]}" for name in operators}
    for old, new in changes.items():
        assert text.count(old) == 1, f"{old!r} is not once in {CONFIGURATION.name}"
        text = text.replace(old, new)
    return text


def _wait_until_listening(running: Balancer, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            running.healthy()
        except urllib.error.URLError:
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"haproxy does not listen: {log.read_text()}")
            time.sleep(0.02)
        else:
            return
