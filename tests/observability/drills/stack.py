"""What Compose runs, as processes of ours: three instances behind HAProxy, their servers, a prober, and Prometheus."""

import asyncio
import os
import re
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import aiohttp

from claimsvc.embedded import free_port
from tests.observability.dashboards.prometheus import Prometheus, open_prometheus
from tests.support.admin import ADMIN_KEY
from tests.support.alert_rules import RULE_FILES, quickened
from tests.support.cluster import Cluster, open_cluster
from tests.support.haproxy import Balancer, balancer
from tests.support.instance import Instance
from tests.support.prober import prober

CLAIMS_PER_SECOND = 20
COUPON = "drilled"
_NAMES = ("app-1", "app-2", "app-3")
_PLENTY = 10_000_000
_LOCK_TTL_SECONDS = 20.0
_CLIENT_SECONDS = 10.0
_UP_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast Prometheus looks, and how the rules' durations are divided.

    Args:
        haste: what the rules' durations are divided by; 1 leaves the rules as they are.
        scrape_seconds, evaluation_seconds: of Prometheus.
        probe_seconds: between two probes.
    """

    haste: float
    scrape_seconds: float
    evaluation_seconds: float
    probe_seconds: float


REAL = Pace(haste=1, scrape_seconds=5, evaluation_seconds=15, probe_seconds=10)
"""As in Compose; the prober as the documentation has it."""
HASTY = Pace(haste=10, scrape_seconds=1, evaluation_seconds=1, probe_seconds=1)


class Stack:
    """Everything that runs.

    Args:
        cluster: servers and instances.
        prometheus: scrapes instances, balancer and prober under our rules.
        balancing: the balancer; closing it ends the balancer.
        ports: of the balancer.
    """

    def __init__(self, cluster: Cluster, prometheus: Prometheus, ports: tuple[int, int, int], pace: Pace) -> None:
        self.cluster = cluster
        self.prometheus = prometheus
        self.pace = pace
        self.answers: Counter[str] = Counter()
        """What users got, by status; `none` where there was no answer."""
        self._ports = ports
        self._balancing = ExitStack()

    @property
    def instances(self) -> list[Instance]:
        return self.cluster.instances

    @property
    def url(self) -> str:
        """Of the balancer."""
        return f"http://127.0.0.1:{self._ports[0]}"

    def balance(self) -> Balancer:
        """Start the balancer."""
        by_name = dict(zip(_NAMES, (each.port for each in self.instances), strict=True))
        return self._balancing.enter_context(balancer(by_name, self.cluster.folder, ports=self._ports))

    def stop_balancing(self) -> None:
        self._balancing.close()

    async def firing(self) -> dict[str, str]:
        """The severities of the alerts that fire now, by name."""
        found = await self.prometheus.query('ALERTS{alertstate="firing", severity!="info"}')
        return {each.labels["alertname"]: each.labels["severity"] for each in found}

    async def healthy(self, ignoring: Collection[str], timeout_seconds: float, but_for: str = "") -> None:
        """Wait until all instances are ready, and neither a page fires, but those to ignore, nor that ticket."""
        deadline = time.monotonic() + timeout_seconds
        await self.prometheus.until(f"sum(claimsvc_ready) == {len(self.instances)}", timeout_seconds)
        while fires := {
            name for name, severity in (await self.firing()).items() if severity == "page" or name == but_for
        } - set(ignoring):
            if time.monotonic() > deadline:
                raise AssertionError(f"nothing is done to it, and there fire {fires}")
            await asyncio.sleep(0.2)

    async def command(self, *words: str) -> str:
        """What a command prints, run with the settings of the last instance."""
        settings = self.instances[-1].settings
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("CLAIMSVC_")}
        process = await asyncio.create_subprocess_exec(
            *words,
            env=inherited | settings | {"CLAIMSVC_PROBE_KEY": ADMIN_KEY},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        printed, _ = await process.communicate()
        return printed.decode()

    async def use(self) -> None:
        """Claim through the balancer, as users do, until cancelled."""
        numbers = count()
        tasks: set[asyncio.Task[None]] = set()
        run = os.urandom(3).hex()
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        timeout = aiohttp.ClientTimeout(total=_CLIENT_SECONDS)
        async with aiohttp.ClientSession(self.url, connector=connector, timeout=timeout) as session:
            try:
                while True:
                    task = asyncio.create_task(self._claim(session, f"{run}-{next(numbers)}"))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                    await asyncio.sleep(1 / CLAIMS_PER_SECOND)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _claim(self, session: aiohttp.ClientSession, user: str) -> None:
        try:
            async with session.post("/api/coupons/claim", json={"user_id": user, "coupon_name": COUPON}) as answer:
                self.answers[str(answer.status)] += 1
        except (OSError, TimeoutError, aiohttp.ClientError):
            self.answers["none"] += 1


@asynccontextmanager
async def open_stack(pace: Pace, folder: Path) -> AsyncIterator[Stack]:
    """Start everything, with users who claim; end it on leaving.

    Args:
        pace: of Prometheus and its rules.
        folder: for the rules.
    """
    async with AsyncExitStack() as opened:
        cluster = await asyncio.to_thread(opened.enter_context, open_cluster())
        ports = (free_port(), free_port(), free_port())
        # The lock of an instance that was killed refuses claims for less long than rules wait: so it is divided, too.
        made = [cluster.add({"CLAIMSVC_LOCK_TTL_SECONDS": f"{_LOCK_TTL_SECONDS / pace.haste:g}"}) for _ in _NAMES]
        _remember_an_hour(cluster.folder, ports[1], [each.port for each in made])
        rules = list(RULE_FILES) if pace.haste == 1 else quickened(folder, pace.haste)
        prometheus = opened.enter_context(
            open_prometheus(
                cluster.folder,
                rule_files=rules,
                scrape_seconds=pace.scrape_seconds,
                evaluation_seconds=pace.evaluation_seconds,
            )
        )
        stack = Stack(cluster, prometheus, ports, pace)
        await asyncio.gather(*(each.start() for each in made))
        opened.callback(stack.stop_balancing)
        await asyncio.to_thread(stack.balance)
        await cluster.create_coupon(_PLENTY, name=COUPON)
        probes = opened.enter_context(prober(stack.url, cluster.folder, every_seconds=pace.probe_seconds))
        prometheus.scrape(
            *(each.port for each in stack.instances), others={"haproxy": [ports[1]], "claimsvc-probe": [probes]}
        )
        await prometheus.until("sum(up) == 5", _UP_SECONDS)
        users = asyncio.create_task(stack.use())
        try:
            yield stack
        finally:
            users.cancel()
            await asyncio.gather(users, return_exceptions=True)


def _remember_an_hour(folder: Path, watch_port: int, instance_ports: Sequence[int]) -> None:
    """Let Prometheus know an hour in which everything was answered well and at once.

    Objectives look back over an hour. Without one, a minute's failures were all that they see.
    """
    families: dict[str, dict[str, float]] = {}
    labels = f'job="haproxy",instance="127.0.0.1:{watch_port}",proxy="claims"'
    families["haproxy_frontend_http_responses"] = {
        f'_total{{{labels},code="2xx"}}': CLAIMS_PER_SECOND,
        f'_total{{{labels},code="5xx"}}': 0,
    }
    each = CLAIMS_PER_SECOND / len(instance_ports)
    instances = [f'job="claimsvc",instance="127.0.0.1:{port}"' for port in instance_ports]
    claim = 'method="POST",route="/api/coupons/claim",status="201"'
    families["claimsvc_http_requests"] = {f"_total{{{where},{claim}}}": each for where in instances}
    decided = 'strategy="redlock",outcome="claimed"'
    families["claimsvc_claim_duration_seconds"] = {
        f"{end}": each
        for where in instances
        for end in (
            f'_bucket{{{where},{decided},le="0.25"}}',
            f'_bucket{{{where},{decided},le="+Inf"}}',
            f"_count{{{where},{decided}}}",
        )
    }
    file = folder / "an-hour.txt"
    file.write_text("\n".join([*_exposition(families), "# EOF", ""]))
    command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(file), str(folder / "data")]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr


def _exposition(families: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """An hour of counters that grow by so much a second, in the format that promtool reads."""
    began_at = int(time.time()) - 30 - 3600
    for family, series in families.items():
        yield f"# TYPE {family} {'histogram' if family.endswith('_seconds') else 'counter'}"
        for name, rate in series.items():
            for second in range(0, 3600, 15):
                yield f"{family}{name} {rate * second:.0f} {began_at + second}"


_CHANGING = (
    (re.compile(r"127\.0\.0\.1:\d+|port \d+|\('127\.0\.0\.1', \d+\)"), "HOST:PORT"),
    (re.compile(r" ?\(request [0-9a-f-]+, sent \d+ times\)| ?\(\d+ ms\)"), ""),
    (re.compile(r"\bfaults_[0-9a-f]+"), "claimsvc"),
    (re.compile(r"\bin-line-[0-9a-f]+"), "in-line"),
    (re.compile(r"\b[\w.-]+:\d+:[0-9a-f]{8}\b"), "INSTANCE"),
    (re.compile(r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\b"), "TIME"),
)


def without_what_changes(text: str) -> str:
    """Text of a command without ports, names and ids of this run."""
    for pattern, replacement in _CHANGING:
        text = pattern.sub(replacement, text)
    return text
