"""Runs the service: in this process, or in several workers that share one port under a supervisor."""

from claimsvc.config import Settings
from claimsvc.errors import EXIT_FAILED, EXIT_OK, EXIT_SETTINGS
from claimsvc.server.supervisor import Supervisor
from claimsvc.server.worker import listen, listen_for_operators, run, serve_as_worker, serve_worker

__all__ = ["EXIT_FAILED", "EXIT_OK", "EXIT_SETTINGS", "listen", "run", "serve", "serve_as_worker", "serve_worker"]


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT.

    Returns:
        The exit status of the process.

    Raises:
        SettingsError: the port cannot be used, or a setting is wrong.
    """
    sock = listen(settings.host, settings.port)
    admin_sock = listen_for_operators(settings)
    if settings.workers == 1:
        return run(serve_worker(settings, sock, admin_sock=admin_sock))
    return run(Supervisor(settings, sock, admin_sock).run())
