"""What a worker and its supervisor have in common: sockets, the event loop, and how long stopping takes.

It imports nothing of the service itself, which takes most of the time of a start and the supervisor does not need.
"""

import asyncio
import contextlib
import errno
import resource
import socket
from collections.abc import Coroutine
from typing import Any

import uvloop

from claimsvc.config import Settings
from claimsvc.errors import SettingsError

# Connections that wait to be accepted. The kernel limits it to net.core.somaxconn, 4096 on current Linux.
BACKLOG = 4096
TEARDOWN_SECONDS = 10.0  # after the grace period, to finish claims and close connections


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
        sock.listen(BACKLOG)
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


def stop_seconds(settings: Settings) -> float:
    """Return the longest time that a worker takes to stop (seconds): drain notice, grace period, and 10 s to close."""
    return settings.shutdown_drain_notice_seconds + settings.shutdown_grace_seconds + TEARDOWN_SECONDS


def run(main: Coroutine[Any, Any, int]) -> int:
    """Run a coroutine on uvloop and return its result. Raises the limit of open files to the maximum."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # some systems report a limit that they do not grant
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)
