"""A Prometheus of our own: the system's package as a process, asked over HTTP as Grafana asks it."""

import asyncio
import json
import math
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import yaml

from claimsvc.embedded import GuardedProcess, current_account, free_port

JOB = "claimsvc"

_START_SECONDS = 30.0
_HTTP_SECONDS = 10.0
_POLL_SECONDS = 0.1

needs_prometheus = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")),
    reason="needs prometheus and promtool, of the system package `prometheus`",
)


class PrometheusError(Exception):
    """Prometheus does not run, or refuses an expression; the message says why."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One series of an answer, at the moment of the question."""

    labels: Mapping[str, str]
    value: float

    @property
    def is_number(self) -> bool:
        return math.isfinite(self.value)


class Prometheus:
    """One that runs. `open_prometheus` makes it.

    Args:
        url: where it answers.
        targets: the file from which it reads whom to scrape.
    """

    def __init__(self, url: str, targets: Path) -> None:
        self.url = url
        self._targets = targets

    def scrape(self, *ports: int, others: Mapping[str, Sequence[int]] = MappingProxyType({})) -> None:
        """Scrape the instances on these ports of this machine, and nobody else, from the next second on.

        Args:
            ports: of instances.
            others: ports of other jobs, by the name of the job.
        """
        groups = [
            {"targets": [f"127.0.0.1:{port}" for port in theirs], "labels": {"job": job}}
            for job, theirs in {JOB: ports, **others}.items()
        ]
        fresh = self._targets.with_suffix(".new")
        fresh.write_text(json.dumps(groups))
        fresh.replace(self._targets)

    async def query(self, expression: str, at: float | None = None) -> list[Sample]:
        """The value of an expression, one sample for each series.

        Args:
            expression: what is asked.
            at: the moment that it is asked of (Unix seconds); now by default.

        Raises:
            PrometheusError: it is no valid expression, or does not end in time.
        """
        moment = {} if at is None else {"time": f"{at:.3f}"}
        answer = await self._get("query", query=expression, **moment)
        if answer["resultType"] == "scalar":
            return [Sample({}, float(answer["result"][1]))]
        return [Sample(each["metric"], float(each["value"][1])) for each in answer["result"]]

    async def until(self, expression: str, timeout_seconds: float = 120.0) -> list[Sample]:
        """Wait until an expression has an answer that is not empty. A comparison is empty for as long as it is false.

        Raises:
            TimeoutError: it has none in that time.
        """
        deadline = time.monotonic() + timeout_seconds
        while not (found := await self.query(expression)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"in {timeout_seconds:g} s nothing came of {expression}")
            await asyncio.sleep(_POLL_SECONDS)
        return found

    async def rules(self) -> list[dict[str, Any]]:
        """Every rule of its rule files, with its state and its health, as the API tells them."""
        groups = (await self._get("rules"))["groups"]
        return [rule for group in groups for rule in group["rules"]]

    async def _get(self, path: str, **parameters: str) -> Any:
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        return await asyncio.to_thread(_fetch, url)


def _fetch(url: str) -> Any:
    try:
        with urllib.request.urlopen(url, timeout=_HTTP_SECONDS) as answer:
            told = json.load(answer)
    except urllib.error.HTTPError as refused:
        with refused:
            told = json.load(refused)
    if told["status"] != "success":
        raise PrometheusError(f"{told['error']}, asked {urllib.parse.unquote_plus(url)}")
    return told["data"]


@contextmanager
def open_prometheus(
    folder: Path,
    *,
    rule_files: Sequence[Path] = (),
    scrape_seconds: float = 1.0,
    evaluation_seconds: float | None = None,
) -> Iterator[Prometheus]:
    """Start a Prometheus that scrapes nobody yet; end it on leaving.

    Args:
        folder: where it keeps its data and its log.
        rule_files: recording and alerting rules.
        scrape_seconds: between two scrapes of a target.
        evaluation_seconds: between two evaluations of the rules; as often as it scrapes by default.
    """
    targets, config, log = folder / "targets.json", folder / "prometheus.yml", folder / "prometheus.log"
    targets.write_text("[]")
    interval = f"{scrape_seconds * 1000:.0f}ms"
    evaluation = f"{(evaluation_seconds or scrape_seconds) * 1000:.0f}ms"
    discovery = {"files": [str(targets)], "refresh_interval": "500ms"}
    config.write_text(
        yaml.safe_dump(
            {
                "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": evaluation},
                "rule_files": [str(path.resolve()) for path in rule_files],
                "scrape_configs": [{"job_name": JOB, "file_sd_configs": [discovery]}],
            }
        )
    )
    checked = subprocess.run(["promtool", "check", "config", config], capture_output=True, text=True, check=False)
    if checked.returncode:
        raise PrometheusError(checked.stdout + checked.stderr)
    port = free_port()
    with log.open("wb") as output:
        process = GuardedProcess(
            [
                *(shutil.which("prometheus") or "prometheus", f"--config.file={config}"),
                *(f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{port}"),
            ],
            account=current_account(),
            output=output,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + _START_SECONDS
        while not _is_ready(url):
            if not process.running or time.monotonic() > deadline:
                raise PrometheusError(f"it does not start: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(_POLL_SECONDS)
        yield Prometheus(url, targets)
    finally:
        process.end()


def _is_ready(url: str) -> bool:
    try:
        urllib.request.urlopen(f"{url}/-/ready", timeout=_HTTP_SECONDS).close()
    except OSError:
        return False
    return True
