"""What the routes need, and who watches them; handed down by the composition root."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from aiohttp import web

from claimsvc import ports
from claimsvc.live import Live


class HttpObserver(Protocol):
    """What the HTTP layer tells whoever watches it."""

    def observed(self, method: str, route: str, status: int, seconds: float) -> None:
        """One request was answered.

        `method` is a known method or `OTHER`, and `route` a template of the route table or `unmatched`, so that both
        stay few whatever is asked for. `seconds` run from the whole head having arrived to the answer being ready.
        """
        ...


class Unobserved:
    """Nobody watches."""

    def observed(self, method: str, route: str, status: int, seconds: float) -> None:
        """Forget it."""


class StressTests(Protocol):
    """What fires the stress test at this service, in development."""

    @property
    def scenarios(self) -> Collection[str]:
        """What can be started."""
        ...

    def start(self, scenario: str) -> bool:
        """Start it, unless one is running; whether it was started."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What the routes need.

    `render_metrics` answers with a body and its content type. `admin_key_digests` are the SHA-256 digests, in
    lower-case hex, of the keys that may create coupons; without any, nobody may. `live` is what the console shows, and
    `stress` is there in development alone.
    """

    strategy: ports.Claims
    storage: ports.Storage
    health_checks: Mapping[str, ports.HealthCheck]
    observer: HttpObserver = field(default_factory=Unobserved)
    render_metrics: Callable[[], tuple[bytes, str]]
    admin_key_digests: tuple[str, ...]
    body_timeout_seconds: float = 10.0
    live: Live | None = None
    stress: StressTests | None = None


SERVICES: web.AppKey[Services] = web.AppKey("services", Services)
REQUEST_ID: web.RequestKey[str] = web.RequestKey("request_id", str)
