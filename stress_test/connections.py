"""Connections that are open before the first claim, so that latencies measure the service, not handshakes."""

import asyncio
import resource
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace

import aiohttp

from stress_test.errors import ServiceUnavailableError, UsageError

# Handshakes under way at once: below the listen backlog of 128 that many servers have, past which the
# kernel drops SYNs and the client waits a second before it tries again.
_HANDSHAKES = 64
# Files that are not connections for claims: the loop's own, the JSON file, the connections for reading back.
_OTHER_FILES = 128
# Shorter than the idle limit of common servers and proxies, so that it is we who close an idle connection
# first.
_KEEPALIVE_SECONDS = 30.0


def allow_open_files(connections: int) -> None:
    """Raise the soft limit on open files, if that many connections need it.

    Raises:
        UsageError: the hard limit is too low.
    """
    needed = connections + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise UsageError(
            f"{connections} connections need {needed} open files, but the hard limit is {hard}: "
            f"raise it (ulimit -Hn) or ask for fewer --connections."
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


class _Doorkeeper:
    """Holds every connection of the warm-up back until all are open; afterwards counts those opened too late.

    Without it a fast service would answer the first requests on connections that the others then reuse, and
    fewer than wanted would be open.
    """

    def __init__(self, wanted: int) -> None:
        self.late = 0
        self._missing = wanted
        self._all_open = asyncio.Event()
        self._handshakes = asyncio.Semaphore(_HANDSHAKES)

    async def create_start(
        self,
        _session: aiohttp.ClientSession,
        _context: SimpleNamespace,
        _parameters: aiohttp.TraceConnectionCreateStartParams,
    ) -> None:
        if not self._all_open.is_set():
            await self._handshakes.acquire()

    async def create_end(
        self,
        _session: aiohttp.ClientSession,
        _context: SimpleNamespace,
        _parameters: aiohttp.TraceConnectionCreateEndParams,
    ) -> None:
        if self._all_open.is_set():
            self.late += 1
            return
        self._handshakes.release()
        self._missing -= 1
        if self._missing <= 0:
            self._all_open.set()
        await self._all_open.wait()

    def trace(self) -> aiohttp.TraceConfig:
        trace = aiohttp.TraceConfig()
        trace.on_connection_create_start.append(self.create_start)
        trace.on_connection_create_end.append(self.create_end)
        return trace


class WarmSession:
    """A session whose connections are open and pooled."""

    def __init__(self, session: aiohttp.ClientSession, doorkeeper: _Doorkeeper) -> None:
        self.session = session
        self._doorkeeper = doorkeeper

    @property
    def opened_late(self) -> int:
        """How many connections had to be opened after the warm-up, inside somebody's latency."""
        return self._doorkeeper.late


async def _ask(session: aiohttp.ClientSession, url: str) -> None:
    # Whatever it answers: the connection is open, and that is all that is wanted.
    async with session.get(f"{url}/livez", allow_redirects=False) as response:
        await response.read()


@asynccontextmanager
async def warm_session(urls: Sequence[str], connections: int, timeout_seconds: float) -> AsyncIterator[WarmSession]:
    """A session with exactly `connections` open ones, dealt to the instances in turn, closed on leaving.

    Args:
        urls: the instances, without a slash at the end.
        connections: how many to open, and the most that are ever open.
        timeout_seconds: for the whole warm-up, and then for each request.

    Raises:
        UsageError: more open files would be needed than the hard limit allows.
        ServiceUnavailableError: not all of the connections could be opened in time.
    """
    allow_open_files(connections)
    doorkeeper = _Doorkeeper(connections)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections, keepalive_timeout=_KEEPALIVE_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=timeout_seconds),
        trace_configs=[doorkeeper.trace()],
    ) as session:
        reason: str | None = None
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(connections):
                    group.create_task(_ask(session, urls[number % len(urls)]))
        except* (aiohttp.ClientError, OSError) as failures:
            first = failures.exceptions[0]
            reason = str(first) or type(first).__name__
        if reason is not None:
            raise ServiceUnavailableError(
                f"Could not open {connections} connections to {', '.join(urls)} within {timeout_seconds:g} s "
                f"({reason}): check that the service runs and allows as many, or lower --connections."
            )
        yield WarmSession(session, doorkeeper)
