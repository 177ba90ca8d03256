"""Which hosts a request may be addressed to, and from which pages it may come.

A page can make its own name lead to 127.0.0.1 (DNS rebinding), and then a browser lets it use whatever listens there.
Its requests name the page's host in `Host`, and its origin in `Origin`. So where callers need no credentials because
only this machine reaches the service, both must be names of this machine.
"""

import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from ipaddress import ip_address

from aiohttp import hdrs, web
from multidict import CIMultiDictProxy

from claimsvc.http.server.cors import Cors
from claimsvc.http.server.problems import FOREIGN_ORIGIN, MISDIRECTED, RefusedError

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:\s]+)(?::([0-9]{1,5}))?", re.ASCII)
_ORIGIN = re.compile(r"(https?)://(.+)", re.ASCII)
# The ports that clients leave out, by scheme. `Host` does not say the scheme: a proxy may have ended TLS.
_PORTS: Mapping[str, tuple[int, ...]] = {"http": (80,), "https": (443,)}
_PORTS_OF_HOST = (*_PORTS["http"], *_PORTS["https"])
_READING = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS})


class AllowedHosts:
    """The hosts under which requests that change something are accepted.

    Args:
        names: further hosts, such as `app` (with any port) or `app:8080`. Clients leave the ports 80 and 443 out.
        loopback_port: the port under which names and addresses of this machine are accepted; None for none of them.
        cors: origins that may send requests, although they are other hosts.
    """

    def __init__(self, names: Collection[str], *, loopback_port: int | None = None, cors: Cors | None = None) -> None:
        self._names = frozenset(name.lower() for name in names)
        self._loopback_port = loopback_port
        self._cors = cors
        # Looked up first, because parsing costs 2 µs a claim.
        usual = ("127.0.0.1", "localhost") if loopback_port is not None else ()
        self._usual = frozenset(f"{name}:{loopback_port}" for name in usual)

    def refusal(self, headers: CIMultiDictProxy[str]) -> RefusedError | None:
        """Why a request with these headers is refused; None if it is not.

        A request without `Host` or `Origin` does not come from a page of another host: browsers send both.
        """
        for host in headers.getall(hdrs.HOST, ()):
            if not self._allows(host, _PORTS_OF_HOST):
                return RefusedError(MISDIRECTED, f"`Host` must be {self._examples()}.")
        for origin in headers.getall(hdrs.ORIGIN, ()):
            parts = _ORIGIN.fullmatch(origin)
            is_own = parts is not None and self._allows(parts[2], _PORTS[parts[1]])
            if not is_own and not (self._cors is not None and self._cors.allows(origin)):
                return RefusedError(FOREIGN_ORIGIN)
        return None

    def _allows(self, host: str, default_ports: Sequence[int]) -> bool:
        if host in self._usual:
            return True
        parts = _HOST.fullmatch(host.lower())
        if parts is None:
            return False
        name, ports = parts[1], (int(parts[2]),) if parts[2] else default_ports
        if name in self._names or any(f"{name}:{port}" in self._names for port in ports):
            return True
        return self._loopback_port in ports and _is_loopback(name)

    def _examples(self) -> str:
        here = [f"localhost:{self._loopback_port}", f"127.0.0.1:{self._loopback_port}"] if self._loopback_port else []
        return " or ".join(f"`{each}`" for each in dict.fromkeys((*here, *sorted(self._names))))


def _is_loopback(name: str) -> bool:
    # Browsers let `localhost`, and names below it, lead to this machine only (RFC 6761).
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def guarded(handler: _Handler, hosts: AllowedHosts) -> _Handler:
    """Wrap the application's handler: requests that change something must be addressed to one of the hosts."""

    async def handle(request: web.Request) -> web.StreamResponse:
        if request.method not in _READING and (refusal := hosts.refusal(request.headers)) is not None:
            raise refusal
        return await handler(request)

    return handle
