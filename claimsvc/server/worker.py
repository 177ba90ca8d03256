"""One worker: serves the application in this process until it is told to stop."""

import asyncio
import contextlib
import errno
import gc
import os
import resource
import signal
import socket
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog
import uvloop
from aiohttp import web

from claimsvc.bootstrap import application
from claimsvc.config import Settings
from claimsvc.errors import EXIT_FAILED, EXIT_OK, SettingsError
from claimsvc.http.app import create_runner
from claimsvc.http.framework.services import StressTests
from claimsvc.observability.console import Live

_log = structlog.get_logger("claimsvc.server")

# Connections that wait to be accepted. The kernel caps it at net.core.somaxconn, 4096 on current Linux.
_BACKLOG = 4096
START_SECONDS = 30.0
TEARDOWN_SECONDS = 10.0  # after the grace, to finish claims and close connections

Ready = Callable[[], Awaitable[int | None]]


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens, before anything slow is begun, so that a taken port is told at once.

    Raises:
        SettingsError: nothing can listen there; the message says why and what to change.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        raise SettingsError(f"{host!r} is no address of this machine ({error.strerror}): change --host.") from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise SettingsError(_why_not(host, port, error)) from error
    return sock


def _why_not(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} of {host} is taken by another program: stop that, or choose another with --port."
    if error.errno == errno.EACCES:
        return f"Port {port} needs more rights than this user has: choose one from 1024 up with --port."
    return f"{host} port {port} cannot be listened on ({error.strerror}): change --host or --port."


async def serve_worker(
    settings: Settings,
    sock: socket.socket,
    *,
    parent_fd: int | None = None,
    on_ready: Ready | None = None,
    stress: Callable[[Live], StressTests] | None = None,
    start_seconds: float = START_SECONDS,
) -> int:
    """Serve until SIGTERM or SIGINT, then finish what was accepted. The result is the exit status.

    The end is certain: what has not finished after `stop_seconds` is abandoned, with status 1.

    Args:
        settings: how to run; requests that were accepted get `shutdown_grace_seconds` to finish.
        sock: a socket that listens; closed on leaving.
        parent_fd: a pipe that a supervisor holds open: its end means that the supervisor is gone, and stops us too.
        on_ready: runs once requests are answered; a status that it returns ends the service, None does not.
        stress: see `bootstrap.application`.
        start_seconds: how long it may take until then; the process ends with status 1 after it.

    Raises:
        SettingsError: the service cannot start as it is set up.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    # A signal that comes again (from a terminal and from `make`, say) must not cut the drain short.
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if parent_fd is not None:
        loop.add_reader(parent_fd, _parent_is_gone, loop, parent_fd, stop)
    too_late = loop.call_later(start_seconds, _give_up_starting, start_seconds)
    try:
        async with application(settings, stress=stress) as app:
            runner = create_runner(
                app,
                header_timeout_seconds=settings.header_timeout_seconds,
                write_timeout_seconds=settings.write_timeout_seconds,
                shutdown_grace_seconds=settings.shutdown_grace_seconds,
            )
            await runner.setup()
            try:
                site = web.SockSite(runner, sock, backlog=_BACKLOG)
                await site.start()
                too_late.cancel()
                _log.info("serving", address="{}:{}".format(*sock.getsockname()[:2]), pid=os.getpid())
                _spare_the_collector()
                status = await _until_stopped(stop, on_ready)
                _log.info("stopping", grace_seconds=settings.shutdown_grace_seconds)
                last_resort = loop.call_later(stop_seconds(settings), _give_up)
                # The listener goes first, and truly: while uvloop's handle or ours is open, the kernel takes
                # connections that nobody will serve.
                await site.stop()
                sock.close()
                await runner.give_drain_notice(settings.shutdown_drain_notice_seconds)
            finally:
                await runner.cleanup()  # waits for what was accepted
    finally:
        too_late.cancel()
        sock.close()
    last_resort.cancel()
    _log.info("stopped")
    return status


def stop_seconds(settings: Settings) -> float:
    """How long a worker takes to stop at most: the drain notice, the grace, and 10 s to close what is left."""
    return settings.shutdown_drain_notice_seconds + settings.shutdown_grace_seconds + TEARDOWN_SECONDS


def _spare_the_collector() -> None:
    """Leave what was made so far, which stays, out of every garbage collection, and collect less often.

    A claim makes some dozens of objects and hardly a cycle; the default of 700 new objects is a collection for every
    few claims.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def _give_up_starting(seconds: float) -> None:
    """Each step has a limit of its own, but a PostgreSQL that freezes between two of them can outlast those."""
    _log.error("stopped by force: the service could not be started in time", seconds=seconds)
    os._exit(EXIT_FAILED)


def _give_up() -> None:
    """Whatever hangs must not keep the process: PostgreSQL has every claim that was answered."""
    _log.error("stopped by force: what was accepted did not end in time")
    os._exit(EXIT_FAILED)


def _parent_is_gone(loop: asyncio.AbstractEventLoop, parent_fd: int, stop: asyncio.Event) -> None:
    loop.remove_reader(parent_fd)
    _log.warning("supervisor gone")
    stop.set()


async def _until_stopped(stop: asyncio.Event, on_ready: Ready | None) -> int:
    stopped = asyncio.ensure_future(stop.wait())
    ready = asyncio.ensure_future(on_ready()) if on_ready is not None else None
    try:
        if ready is None:
            await stopped
            return EXIT_OK
        await asyncio.wait({stopped, ready}, return_when=asyncio.FIRST_COMPLETED)
        if ready.done():
            status = ready.result()
            if status is not None:
                return status
        await stopped
        return EXIT_OK
    finally:
        for task in (stopped, ready):
            if task is not None and not task.done():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task


def serve_as_worker(settings: Settings, listen_fd: int, parent_fd: int, ready_fd: int) -> int:
    """What a supervisor's worker does, given the supervisor's socket and pipes. The result is the exit status."""

    async def note_ready() -> None:
        os.write(ready_fd, b".")

    sock = socket.socket(fileno=listen_fd)
    return run(serve_worker(settings, sock, parent_fd=parent_fd, on_ready=note_ready))


def run(main: Coroutine[Any, Any, int]) -> int:
    """Run a coroutine to its end on uvloop, with as many connections as the system allows this process."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # some systems name a limit that they do not grant
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)
