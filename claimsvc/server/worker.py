"""One worker: serves the application in this process until it receives a signal."""

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
from claimsvc.http.app import create_operators_app, create_runner
from claimsvc.http.framework.services import ForDevelopment
from claimsvc.http.runner import Runner
from claimsvc.http.server.unfinished import UnfinishedRequests

_log = structlog.get_logger("claimsvc.server")

# Connections that wait to be accepted. The kernel limits it to net.core.somaxconn, 4096 on current Linux.
_BACKLOG = 4096
START_SECONDS = 30.0
TEARDOWN_SECONDS = 10.0  # after the grace period, to finish claims and close connections

Ready = Callable[[], Awaitable[int | None]]


def listen_for_operators(settings: Settings) -> socket.socket | None:
    """Open the socket of the port for operators, if there is one. Raises as `listen`."""
    if settings.admin_port is None:
        return None
    return listen(settings.host, settings.admin_port, setting="CLAIMSVC_ADMIN_PORT")


def listen(host: str, port: int, *, setting: str = "--port or CLAIMSVC_PORT") -> socket.socket:
    """Open a listening socket. Done before anything slow, so that a port in use is reported immediately.

    Args:
        host, port: where.
        setting: how another port is chosen, for the message.

    Raises:
        SettingsError: the address or port cannot be used; the message says why and what to change.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        raise SettingsError(f"{host!r} is not an address of this machine ({error.strerror}): change --host.") from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise SettingsError(_why_not(host, port, setting, error)) from error
    return sock


def _why_not(host: str, port: int, setting: str, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} of {host} is in use by another program: stop it, or choose another port with {setting}."
    if error.errno == errno.EACCES:
        return f"This user may not listen on port {port}: choose one above 1023 with {setting}."
    return f"Cannot listen on {host} port {port} ({error.strerror}): change --host, or the port with {setting}."


async def serve_worker(
    settings: Settings,
    sock: socket.socket,
    *,
    admin_sock: socket.socket | None = None,
    parent_fd: int | None = None,
    on_ready: Ready | None = None,
    development: ForDevelopment | None = None,
    start_seconds: float = START_SECONDS,
) -> int:
    """Serve until SIGTERM or SIGINT, then finish the accepted requests.

    The process ends with status 1 if they have not finished after `stop_seconds`.

    Args:
        settings: of the service; accepted requests get `shutdown_grace_seconds` to finish.
        sock: a listening socket; closed on return.
        admin_sock: the listening socket of the port for operators; closed on return. None without `admin_port`.
        parent_fd: a pipe that the supervisor holds open. Its end-of-file means that the supervisor is gone, and stops
            this worker.
        on_ready: called once the service accepts requests. If it returns a status, the service stops with it.
        development: see `bootstrap.application`.
        start_seconds: time limit of the start; after it the process ends with status 1.

    Returns:
        The exit status.

    Raises:
        SettingsError: a setting is wrong.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    # A repeated signal (for example from the terminal and from `make`) must not interrupt the drain.
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if parent_fd is not None:
        loop.add_reader(parent_fd, _parent_is_gone, loop, parent_fd, stop)
    too_late = loop.call_later(start_seconds, _give_up_starting, start_seconds)
    try:
        async with application(settings, development) as app:
            unfinished = UnfinishedRequests(settings.unfinished_requests_bytes)
            runner = _runner(settings, app, unfinished)
            operators_app = None if admin_sock is None else create_operators_app(app)
            admin_runner = None if operators_app is None else _runner(settings, operators_app, unfinished)
            await runner.setup()
            try:
                site = web.SockSite(runner, sock, backlog=_BACKLOG)
                await site.start()
                addresses = {"address": _address(sock)}
                if admin_runner is not None and admin_sock is not None:
                    await admin_runner.setup()
                    await web.SockSite(admin_runner, admin_sock, backlog=_BACKLOG).start()
                    addresses["admin_address"] = _address(admin_sock)
                too_late.cancel()
                _log.info("serving", **addresses, pid=os.getpid())
                _tune_garbage_collector()
                status = await _until_stopped(stop, on_ready)
                _log.info("stopping", grace_seconds=settings.shutdown_grace_seconds)
                last_resort = loop.call_later(stop_seconds(settings), _give_up)
                # Both uvloop's handle and the socket must be closed: while either is open, the kernel accepts
                # connections that this worker will not serve.
                await site.stop()
                sock.close()
                await runner.give_drain_notice(settings.shutdown_drain_notice_seconds)
            finally:
                await runner.cleanup()  # waits for accepted requests
                if admin_runner is not None:
                    await admin_runner.cleanup()  # last, so that metrics are read until the end
    finally:
        too_late.cancel()
        sock.close()
        if admin_sock is not None:
            admin_sock.close()
    last_resort.cancel()
    _log.info("stopped")
    return status


def _runner(settings: Settings, app: web.Application, unfinished: UnfinishedRequests) -> Runner:
    return create_runner(
        app,
        header_timeout_seconds=settings.header_timeout_seconds,
        write_timeout_seconds=settings.write_timeout_seconds,
        shutdown_grace_seconds=settings.shutdown_grace_seconds,
        unfinished=unfinished,
    )


def _address(sock: socket.socket) -> str:
    return "{}:{}".format(*sock.getsockname()[:2])


def stop_seconds(settings: Settings) -> float:
    """Return the longest time that a worker takes to stop (seconds): drain notice, grace period, and 10 s to close."""
    return settings.shutdown_drain_notice_seconds + settings.shutdown_grace_seconds + TEARDOWN_SECONDS


def _tune_garbage_collector() -> None:
    """Exclude the objects created so far from garbage collection, and collect less often.

    A claim creates some dozens of objects and hardly any cycles. The default threshold of 700 objects would cause a
    collection every few claims.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def _give_up_starting(seconds: float) -> None:
    """End the process. Each step has a time limit, but a PostgreSQL that freezes between steps can exceed them."""
    _log.error("stopped by force: the service could not be started in time", seconds=seconds)
    os._exit(EXIT_FAILED)


def _give_up() -> None:
    """End the process although something hangs. This is safe: PostgreSQL has every acknowledged claim."""
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


def serve_as_worker(
    settings: Settings, listen_fd: int, parent_fd: int, ready_fd: int, admin_fd: int | None = None
) -> int:
    """Serve as a worker of a supervisor, and return the exit status.

    Args:
        settings: of the service.
        listen_fd: the listening socket.
        parent_fd: a pipe whose end-of-file means that the supervisor is gone.
        ready_fd: a pipe to write to once this worker serves.
        admin_fd: the listening socket of the port for operators, if there is one.
    """

    async def note_ready() -> None:
        os.write(ready_fd, b".")

    sock = socket.socket(fileno=listen_fd)
    admin_sock = None if admin_fd is None else socket.socket(fileno=admin_fd)
    return run(serve_worker(settings, sock, admin_sock=admin_sock, parent_fd=parent_fd, on_ready=note_ready))


def run(main: Coroutine[Any, Any, int]) -> int:
    """Run a coroutine on uvloop and return its result. Raises the limit of open files to the maximum."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # some systems report a limit that they do not grant
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)
