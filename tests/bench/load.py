"""The load generator: a closed loop of claims over keep-alive connections, in a process of its own.

A program: `python -m tests.bench.load` reads one plan a line (JSON) from standard input, carries it out, and writes
one result a line. It speaks just enough HTTP/1.1 on bare sockets to cost a fraction of what the servers cost.
"""

import asyncio
import gc
import os
import re
import sys
import time
from array import array
from collections import Counter
from itertools import count
from typing import cast

import orjson
import uvloop

from tests.bench.cpu import cpu_seconds
from tests.bench.plan import Plan, Result
from tests.bench.requests import requests

_CONNECTING_AT_ONCE = 256
_LONGEST_WARM_UP_SECONDS = 30.0
_POLL_SECONDS = 0.02
_DRAIN_SECONDS = 5.0  # longest wait for the answers that are outstanding at the end
_HEADERS_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_PROBLEM = re.compile(rb'"type"\s*:\s*"([^"]*)"')


def outcome(status: bytes, answer: bytes) -> str:
    """The status; of a refusal also the last word of its problem's type, such as `409 sold-out`."""
    found = _PROBLEM.search(answer) if not status.startswith(b"2") else None
    return status.decode() + (f" {found[1].decode().rpartition('/')[2]}" if found else "")


class Connection(asyncio.Protocol):
    """One connection, with one request under way while the load lasts."""

    __slots__ = ("_load", "_partial", "_sent_at", "_target", "_transport")

    def __init__(self, load: "Load", target: int) -> None:
        self._load = load
        self._target = target
        self._partial = b""
        self._sent_at = 0.0  # 0: nothing is under way
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class

    def send(self) -> None:
        self._sent_at = time.perf_counter()
        self._transport.write(self._load.next_request())

    def data_received(self, data: bytes) -> None:
        if self._partial:
            data = self._partial + data
        end = data.find(_HEADERS_END)
        if end < 0:
            self._partial = data
            return
        length = _LENGTH.search(data, 0, end)
        if length is None:
            self._transport.abort()  # no server here answers so; it is counted as lost
            return
        missing = end + len(_HEADERS_END) + int(length[1]) - len(data)
        if missing > 0:
            self._partial = data
            return
        self._partial = b""
        sent_at, self._sent_at = self._sent_at, 0.0
        if self._load.answered(self._target, sent_at, data):
            self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._sent_at:
            self._sent_at = 0.0
            self._load.lost()

    def abort(self) -> float:
        """End the connection. The result is when the request was sent that is under way; 0 if there is none."""
        sent_at, self._sent_at = self._sent_at, 0.0
        self._transport.abort()
        return sent_at


class Load:
    """Carries out one plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._numbers = count(plan.first_user)
        self.next_request = requests(plan, self._numbers)
        self._connections: list[Connection] = []
        self._under_way = 0
        self._sending = True
        self._recording = False
        self._timing = False
        self._answered = [0] * len(plan.ports)
        self._outcomes: Counter[str] = Counter()
        self._latencies = array("d")
        self._drained = asyncio.Event()

    async def run(self) -> Result:
        """Connect, warm up, measure, and wait for what is outstanding."""
        await self._connect()
        for connection in self._connections:
            self._under_way += 1
            connection.send()
        await self._warm_up()
        before = self._cpu()
        started = time.perf_counter()
        self._recording = self._timing = True
        await asyncio.sleep(self.plan.seconds)
        self._recording = self._sending = False
        seconds = time.perf_counter() - started
        after = self._cpu()
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                if self._under_way:
                    await self._drained.wait()
        except TimeoutError:
            self._outcomes["no answer"] += self._under_way
        for connection in self._connections:
            if sent_at := connection.abort():
                self._latencies.append(time.perf_counter() - sent_at)
        return self._result(seconds, {group: after[group] - before[group] for group in after})

    def answered(self, target: int, sent_at: float, answer: bytes) -> bool:
        """Count an answer; whether the connection is to ask again."""
        status = answer[9:12]
        found = status.decode() if status in {b"201", b"202"} else outcome(status, answer)
        self._outcomes[found] += 1
        if self._timing:
            self._latencies.append(time.perf_counter() - sent_at)
        if self._recording and found == self.plan.expected:
            self._answered[target] += 1
        if self._sending:
            return True
        self._ended()
        return False

    def lost(self) -> None:
        """Count a connection that ended without an answer. It is not opened again: no server here ends one."""
        self._outcomes["connection lost"] += 1
        self._ended()

    def _ended(self) -> None:
        self._under_way -= 1
        if not self._under_way:
            self._drained.set()

    async def _warm_up(self) -> None:
        await asyncio.sleep(self.plan.warm_up_seconds)
        deadline = time.perf_counter() + _LONGEST_WARM_UP_SECONDS
        while self._outcomes.total() < self.plan.warm_up_answers and time.perf_counter() < deadline:
            await asyncio.sleep(_POLL_SECONDS)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        targets = [number % len(self.plan.ports) for number in range(self.plan.connections)]
        for start in range(0, len(targets), _CONNECTING_AT_ONCE):
            opened = await asyncio.gather(
                *(
                    loop.create_connection(lambda target=target: Connection(self, target), "127.0.0.1", port)  # type: ignore[misc]
                    for target in targets[start : start + _CONNECTING_AT_ONCE]
                    for port in [self.plan.ports[target]]
                )
            )
            self._connections += [connection for _, connection in opened]

    def _cpu(self) -> dict[str, float]:
        groups = {**self.plan.watched, "client": [os.getpid()]}
        return {group: sum(map(cpu_seconds, pids)) for group, pids in groups.items()}

    def _result(self, seconds: float, cpu: dict[str, float]) -> Result:
        ordered = sorted(self._latencies)

        def percentile_ms(percent: int) -> float:
            # By nearest rank: the smallest that at least so many do not exceed.
            return ordered[-(-percent * len(ordered) // 100) - 1] * 1000 if ordered else 0.0

        return Result(
            seconds=seconds,
            answered=self._answered,
            outcomes=dict(self._outcomes),
            p50_ms=percentile_ms(50),
            p99_ms=percentile_ms(99),
            max_ms=percentile_ms(100),
            cpu_seconds=cpu,
            users=next(self._numbers) - self.plan.first_user,
        )


def main() -> None:
    """Carry out plans until standard input ends, which it does at the latest when whoever started us is gone."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        gc.disable()  # a pause here would be measured as a server's; between plans there is time for it
        for line in sys.stdin.buffer:
            result = runner.run(Load(Plan(**orjson.loads(line))).run())
            sys.stdout.buffer.write(orjson.dumps(result) + b"\n")
            sys.stdout.buffer.flush()
            gc.collect()


if __name__ == "__main__":
    main()
