"""Runs the service: in this process, or in several workers that share one port under a supervisor.

The service is imported by the process that serves, and not by a supervisor: that is a second of CPU and most of the
memory.
"""

from claimsvc.config import Settings
from claimsvc.server.process import listen, listen_for_operators, run

__all__ = ["serve", "serve_as_worker"]


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT.

    Returns:
        The exit status of the process.

    Raises:
        SettingsError: the port cannot be used, or a setting is wrong.
    """
    if settings.workers == 1:
        from claimsvc.server.worker import serve_worker  # before anything listens: it is slow

        sock = listen(settings.host, settings.port)
        return run(serve_worker(settings, sock, admin_sock=listen_for_operators(settings)))
    from claimsvc.server.supervisor import Supervisor

    sock = listen(settings.host, settings.port)
    return run(Supervisor(settings, sock, listen_for_operators(settings)).run())


def serve_as_worker(
    settings: Settings, listen_fd: int, parent_fd: int, ready_fd: int, admin_fd: int | None = None
) -> int:
    """Serve as a worker of a supervisor; see `worker.serve_as_worker`."""
    from claimsvc.server import worker

    return worker.serve_as_worker(settings, listen_fd, parent_fd, ready_fd, admin_fd)
