"""Opens the connections before the first claim, so that latencies measure the service, not handshakes."""

import asyncio
import resource
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace

import aiohttp

from stress_test.errors import ServiceUnavailableError, UsageError

# Concurrent handshakes: below the listen backlog of 128 that many servers have. Beyond it the kernel drops SYNs, and
# the client waits a second before it retries.
_HANDSHAKES = 64
# Open files besides the connections for claims: the event loop's, the JSON file, the connections for reading back.
_OTHER_FILES = 128
# Shorter than the idle timeout of common servers and proxies, so that the client closes idle connections first.
_KEEPALIVE_SECONDS = 30.0


def allow_open_files(connections: int) -> None:
    """Raise the soft limit of open files, if this number of connections needs it.

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
            f"raise it (ulimit -Hn) or lower --connections."
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


class _ConnectionBarrier:
    """Blocks every connection of the warm-up until all are open; afterwards counts those that are opened late.

    Without it, later requests would reuse the connections of requests that a fast service has already answered, and
    fewer connections would be open.
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

    def __init__(self, session: aiohttp.ClientSession, barrier: _ConnectionBarrier) -> None:
        self.session = session
        self._barrier = barrier

    @property
    def opened_late(self) -> int:
        """Number of connections that were opened after the warm-up, and so count in a claim's latency."""
        return self._barrier.late


async def _open_connection(session: aiohttp.ClientSession, url: str) -> None:
    # The answer does not matter; the request opens the connection.
    async with session.get(f"{url}/livez", allow_redirects=False) as response:
        await response.read()


@asynccontextmanager
async def warm_session(urls: Sequence[str], connections: int, timeout_seconds: float) -> AsyncIterator[WarmSession]:
    """Open a session with exactly `connections` open connections, distributed over the instances.

    Args:
        urls: of the instances, without a trailing slash.
        connections: number of connections to open, and the limit of open connections.
        timeout_seconds: of the warm-up, and then of each request.

    Raises:
        UsageError: the hard limit of open files is too low.
        ServiceUnavailableError: the connections could not be opened in time.
    """
    allow_open_files(connections)
    barrier = _ConnectionBarrier(connections)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections, keepalive_timeout=_KEEPALIVE_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=timeout_seconds),
        trace_configs=[barrier.trace()],
    ) as session:
        reason: str | None = None
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(connections):
                    group.create_task(_open_connection(session, urls[number % len(urls)]))
        except* (aiohttp.ClientError, OSError) as failures:
            first = failures.exceptions[0]
            reason = str(first) or type(first).__name__
        if reason is not None:
            raise ServiceUnavailableError(
                f"Could not open {connections} connections to {', '.join(urls)} within {timeout_seconds:g} s "
                f"({reason}): check that the service runs and allows this number, or lower --connections."
            )
        yield WarmSession(session, barrier)
