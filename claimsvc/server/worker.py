"""One worker: serves the application in this process until it receives a signal."""

import asyncio
import gc
import os
import signal
import socket
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web

from claimsvc.background import end
from claimsvc.bootstrap import application
from claimsvc.config import Settings
from claimsvc.errors import EXIT_FAILED, EXIT_OK
from claimsvc.http.app import create_operators_app, create_runner
from claimsvc.http.framework.services import ForDevelopment
from claimsvc.http.runner import Runner
from claimsvc.http.server.unfinished import UnfinishedRequests
from claimsvc.server.process import BACKLOG, run, stop_seconds

_log = structlog.get_logger("claimsvc.server")

START_SECONDS = 30.0

Ready = Callable[[], Awaitable[int | None]]


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
                site = web.SockSite(runner, sock, backlog=BACKLOG)
                await site.start()
                addresses = {"address": _address(sock)}
                if admin_runner is not None and admin_sock is not None:
                    await admin_runner.setup()
                    await web.SockSite(admin_runner, admin_sock, backlog=BACKLOG).start()
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
        await end([task for task in (stopped, ready) if task is not None])


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
