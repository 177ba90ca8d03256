"""The service under the sweep, behind proxies at each of its boundaries: in this process, or as one to be killed."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Any, Protocol
from urllib.parse import urlsplit

from claimsvc.bootstrap import application
from claimsvc.config import Settings
from claimsvc.embedded import free_port
from claimsvc.errors import SettingsError
from tests.faults.sweep.boundaries import BoundaryProxy, Conductor, Mode, boundary_proxy
from tests.faults.sweep.claims import get
from tests.faults.sweep.protocols import HttpConversation, PostgresConversation, RedisConversation
from tests.faults.sweep.work import Work, watch_tasks_of
from tests.support.serving import served

# As short as the settings allow, so that a point at which everything hangs takes a second or two.
LOCK_TTL_SECONDS = 1.0
_REDIS_TIMEOUT_SECONDS = 0.3
_STATEMENT_TIMEOUT_SECONDS = 0.5
# After this the service cuts a conversation with PostgreSQL: a second more than a statement may take.
_UNIT_TIMEOUT_SECONDS = _STATEMENT_TIMEOUT_SECONDS + 1.0
_CLAIM_QUEUE_TIMEOUT_SECONDS = 3.0
_SETTINGS: Mapping[str, str] = {
    "lock_ttl_seconds": str(LOCK_TTL_SECONDS),
    "lock_retry_wait_seconds": "0.2",
    "redis_timeout_seconds": str(_REDIS_TIMEOUT_SECONDS),
    # Few, so that a connection that is not given back is missed soon.
    "redis_pool_size": "8",
    "database_pool_size": "3",
    "database_pool_timeout_seconds": "1",
    "database_connect_timeout_seconds": "2",
    "database_statement_timeout_seconds": str(_STATEMENT_TIMEOUT_SECONDS),
    "database_lock_timeout_seconds": "0.4",
    "database_idle_in_transaction_timeout_seconds": "4",
    "claim_queue_timeout_seconds": str(_CLAIM_QUEUE_TIMEOUT_SECONDS),
    # What comes by the clock is no boundary of a claim.
    "sweep_seconds": "3600",
    "log_level": "error",
}
# Longer than any of the time-outs that it is to outlast.
_LATE_FOR_REDIS_SECONDS = _REDIS_TIMEOUT_SECONDS + 0.2
_LATE_FOR_POSTGRES_SECONDS = _UNIT_TIMEOUT_SECONDS + 0.3
CLIENT_PATIENCE_SECONDS = 0.3
# A claim waits in line, then has its transaction, and then perhaps has to read what became of it.
ANSWER_SECONDS = _CLAIM_QUEUE_TIMEOUT_SECONDS + 2 * _UNIT_TIMEOUT_SECONDS
_START_SECONDS = 60.0
_STARTS = 5


class Service(Protocol):
    """A service that can be started again."""

    work: Work
    port: int

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def act(self, mode: Mode) -> None: ...


class ServiceHere:
    """The service in this event loop, built as in production; its tasks are watched, and can be cancelled."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        self.work = Work()
        self.port = 0
        self._settings = settings
        self._stop = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        for tries_left in reversed(range(_STARTS)):
            try:
                await self._start()
            except SettingsError:  # where much else goes on, masters may be later than the short limit here
                if not tries_left:
                    raise
            else:
                return

    async def _start(self) -> None:
        started: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._stop.clear()
        self._running = asyncio.create_task(self._run(started))
        either: set[asyncio.Future[Any]] = {started, self._running}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not started.done():
            await self._running  # which tells why
        self.port = started.result()

    async def _run(self, started: "asyncio.Future[int]") -> None:
        watch_tasks_of(self.work)
        settings = Settings(**self._settings)
        async with application(settings) as app, served(app, header_timeout_seconds=10) as port:
            started.set_result(port)
            await self._stop.wait()

    async def stop(self) -> None:
        self._stop.set()
        if self._running is not None:
            await self._running

    async def act(self, mode: Mode) -> None:
        if mode.cancels:
            self.work.cancel(callers_only=mode in {Mode.CANCEL_CALLER_BEFORE, Mode.CANCEL_CALLER_AFTER})
            for _ in range(3):  # it reaches the innermost task before anything else does
                await asyncio.sleep(0)


class ServiceToBeKilled:
    """The program `claimsvc serve`, in processes that are forked from one that has imported it."""

    def __init__(self, settings: Mapping[str, str], zygote: "Zygote") -> None:
        self.work = Work()
        self.port = 0
        self._zygote = zygote
        self._settings = settings
        self._pid: int | None = None

    async def start(self) -> None:
        async with asyncio.timeout(_START_SECONDS):
            while not await self._started():
                pass

    async def _started(self) -> bool:
        """Start a process and wait until it serves; False if it ends before that."""
        self.port = free_port()
        environment = {f"CLAIMSVC_{name.upper()}": value for name, value in self._settings.items()}
        self._pid = await self._zygote.start({**environment, "CLAIMSVC_PORT": str(self.port)})
        while True:
            with suppress(OSError):
                if await get(self.port, "/livez"):
                    return True
            try:
                os.kill(self._pid, 0)
            except ProcessLookupError:
                return False
            await asyncio.sleep(0.02)

    async def stop(self) -> None:
        if self._pid is not None:
            os.kill(self._pid, signal.SIGKILL)
            self._pid = None

    async def act(self, mode: Mode) -> None:
        if mode.kills:
            await self.stop()


class Zygote:
    """See `tests.faults.sweep.zygote`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._one_at_a_time = asyncio.Lock()

    async def start(self, environment: Mapping[str, str]) -> int:
        """Start a service with these variables; returns its process id."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        async with self._one_at_a_time:
            stdin.write(json.dumps(environment).encode() + b"\n")
            return int(await stdout.readline())


@asynccontextmanager
async def open_zygote() -> AsyncIterator[Zygote]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.faults.sweep.zygote"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if not name.startswith("CLAIMSVC_")},
    )
    try:
        yield Zygote(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


class Stage:
    """A service with a proxy before it, and one before each of the servers that it uses."""

    def __init__(self, service: Service, conductor: Conductor, http: BoundaryProxy) -> None:
        self.service = service
        self.conductor = conductor
        self.http = http

    async def restart(self) -> None:
        await self.service.stop()
        await self.start()

    async def start(self) -> None:
        await self.service.start()
        self.http.target = ("127.0.0.1", self.service.port)


@asynccontextmanager
async def open_stage(database_url: str, redis_urls: tuple[str, ...], zygote: Zygote | None) -> AsyncIterator[Stage]:
    """The service between its proxies, started.

    Args:
        zygote: where its processes come from; None keeps it in this one.
    """
    services: list[Service] = []

    async def act(mode: Mode) -> None:
        await services[0].act(mode)

    conductor = Conductor(act)
    async with AsyncExitStack() as stack:

        async def before(name: str, conversation: Any, late_seconds: float, url: str) -> str:
            """The URL of a proxy before that server."""
            parts = urlsplit(url)
            proxy = BoundaryProxy(name, conversation, conductor, late_seconds=late_seconds)
            await stack.enter_async_context(boundary_proxy(proxy, parts.hostname or "", parts.port or 0))
            return url.replace(f":{parts.port}", f":{proxy.port}")

        postgres = partial(before, "PostgreSQL", PostgresConversation, _LATE_FOR_POSTGRES_SECONDS)
        settings = {**_SETTINGS, "database_url": await postgres(database_url)}
        settings["redis_urls"] = ",".join(
            [
                await before(f"master{i}", RedisConversation, _LATE_FOR_REDIS_SECONDS, url)
                for i, url in enumerate(redis_urls, 1)
            ]
        )
        http = BoundaryProxy("client", HttpConversation, conductor, late_seconds=CLIENT_PATIENCE_SECONDS + 0.2)
        await stack.enter_async_context(boundary_proxy(http, "127.0.0.1", 0))
        services.append(ServiceHere(settings) if zygote is None else ServiceToBeKilled(settings, zygote))
        stage = Stage(services[0], conductor, http)
        await stage.start()
        try:
            yield stage
        finally:
            await stage.service.stop()
