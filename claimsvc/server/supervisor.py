"""The supervisor: runs several workers on one listening socket, and restarts a worker that ends."""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from asyncio.subprocess import Process
from pathlib import Path
from socket import socket

import structlog
from prometheus_client.multiprocess import mark_process_dead

from claimsvc.config import Settings
from claimsvc.errors import EXIT_FAILED, EXIT_OK, EXIT_SETTINGS
from claimsvc.server.process import stop_seconds

_log = structlog.get_logger("claimsvc.server")

_FIRST_RESTART_SECONDS = 0.5
_LAST_RESTART_SECONDS = 30.0
_HEALTHY_AFTER_SECONDS = 60.0  # after this uptime the restart pause is reset
_KILL_AFTER_SECONDS = 5.0  # beyond the time after which a worker exits by itself


class Supervisor:
    """Keeps `settings.workers` processes serving one socket.

    Workers are started with exec, not forked, so they share no state of libraries.

    Args:
        settings: of the service.
        sock: a listening socket; closed when the supervisor stops.
        admin_sock: that of the port for operators, if there is one.
    """

    def __init__(self, settings: Settings, sock: socket, admin_sock: socket | None = None) -> None:
        self._settings = settings
        self._sock = sock
        self._admin_sock = admin_sock
        self._stopping = asyncio.Event()
        self._status = EXIT_OK
        self._workers: set[Process] = set()
        self._has_served = False

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT.

        Returns:
            The exit status: 78 if the workers reject the settings, 1 if workers had to be killed.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        alive, alive_end = os.pipe()  # never written to: its end-of-file shows the workers that the supervisor is gone
        ready, ready_end = os.pipe()  # a worker writes to it once it serves
        loop.add_reader(ready, self._note_ready, ready)
        metrics_dir = Path(tempfile.mkdtemp(prefix="claimsvc-metrics-"))
        keepers: list[asyncio.Task[None]] = []
        try:
            keepers = [
                loop.create_task(self._keep_worker(number + 1, (alive, ready_end), metrics_dir))
                for number in range(self._settings.workers)
            ]
            await self._stopping.wait()
            self._sock.close()
            if self._admin_sock is not None:
                self._admin_sock.close()
            await self._stop_workers()
            await asyncio.gather(*keepers)
        finally:
            for keeper in keepers:
                keeper.cancel()
            loop.remove_reader(ready)
            for fd in (alive_end, alive, ready_end, ready):
                os.close(fd)
            shutil.rmtree(metrics_dir, ignore_errors=True)
        _log.info("stopped", workers=self._settings.workers)
        return self._status

    async def _keep_worker(self, number: int, pipes: tuple[int, int], metrics_dir: Path) -> None:
        pause_seconds = _FIRST_RESTART_SECONDS
        while not self._stopping.is_set():
            started = time.monotonic()
            worker = await self._start_worker(pipes, metrics_dir)
            self._workers.add(worker)
            try:
                if self._stopping.is_set():
                    _terminate(worker)
                status = await worker.wait()
            finally:
                self._workers.discard(worker)
            # The folder is passed explicitly, because PROMETHEUS_MULTIPROC_DIR is set only in the workers.
            mark_process_dead(worker.pid, str(metrics_dir))  # type: ignore[no-untyped-call]
            if self._stopping.is_set():
                return
            if status == EXIT_SETTINGS and not self._has_served:
                self._status = status  # the worker has logged the reason; a restart would fail the same way
                self._stopping.set()
                return
            lived_seconds = time.monotonic() - started
            if lived_seconds >= _HEALTHY_AFTER_SECONDS:
                pause_seconds = _FIRST_RESTART_SECONDS
            _log.error("worker ended", worker=number, pid=worker.pid, status=status, restart_seconds=pause_seconds)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause_seconds)
            pause_seconds = min(pause_seconds * 2, _LAST_RESTART_SECONDS)

    def _note_ready(self, ready: int) -> None:
        self._has_served = bool(os.read(ready, 512)) or self._has_served

    async def _start_worker(self, pipes: tuple[int, int], metrics_dir: Path) -> Process:
        fds: tuple[int, ...] = (self._sock.fileno(), *pipes)
        if self._admin_sock is not None:
            fds = (*fds, self._admin_sock.fileno())
        worker = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "claimsvc", "worker"),
            *(str(fd) for fd in fds),
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=fds,
            # prometheus_client reads this variable when it is imported, so it must be set before the worker starts.
            env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(metrics_dir)},
            # Ctrl-C is sent to the process group. In their own session, workers get only the supervisor's SIGTERM.
            start_new_session=True,
        )
        _log.info("worker started", pid=worker.pid)
        return worker

    async def _stop_workers(self) -> None:
        _log.info("stopping workers", grace_seconds=self._settings.shutdown_grace_seconds)
        workers = tuple(self._workers)
        for worker in workers:
            _terminate(worker)
        ends = [asyncio.ensure_future(worker.wait()) for worker in workers]
        if not ends:
            return
        _, late = await asyncio.wait(ends, timeout=stop_seconds(self._settings) + _KILL_AFTER_SECONDS)
        if late:
            _log.error("workers killed: they did not end in time", count=len(late))
            self._status = EXIT_FAILED
            for worker in workers:
                with contextlib.suppress(ProcessLookupError):
                    worker.kill()


def _terminate(worker: Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        worker.terminate()
