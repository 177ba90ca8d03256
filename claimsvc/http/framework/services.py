"""What the routes need, and who watches them; handed down by the composition root."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Protocol

from aiohttp import web

from claimsvc import domain, ports
from claimsvc.http.server.observers import HttpObserver, RequestTracer, Unobserved
from claimsvc.observability.console import Live


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

    `render_metrics` is given an `Accept` header, and answers with a body and its content type. `admin_key_digests` are
    the SHA-256 digests, in lower-case hex, of keys that may do everything; `api_keys` are those with scopes. `tokens`
    tell users apart; without them everybody may claim for everybody. `quotas` are on claiming, if there are any;
    `trusted_proxies` are believed whose requests they forward. `count_codes` counts those of a type, and may be a
    moment behind. Of requests that are answered as they should be, `log_requests_per_second` each get a line, and of
    those beyond that a sample. `tracer` is None where claims are not traced. `live` is what the console shows; `stress`
    is there in development alone.
    """

    strategy: ports.AnyClaims
    coupons: ports.Coupons
    claim_records: ports.ClaimRecords
    campaigns: ports.Campaigns
    transitions: ports.Transitions
    codes: ports.Codes
    count_codes: Callable[[str | None], Awaitable[domain.CodeCounts]]
    audience: ports.Audience
    lock_admin: ports.LockAdmin
    audit: ports.AuditLog
    exports: ports.Exports
    erasure: ports.Erasure
    health_checks: Mapping[str, ports.HealthCheck]
    observer: HttpObserver = field(default_factory=Unobserved)
    render_metrics: Callable[[str], tuple[bytes, str]]
    admin_key_digests: tuple[str, ...]
    api_keys: ports.ApiKeys
    tokens: ports.Tokens | None = None
    body_timeout_seconds: float = 10.0
    log_requests_per_second: int = 1000
    tracer: RequestTracer | None = None
    live: Live | None = None
    stress: StressTests | None = None
    quotas: ports.Quotas | None = None
    trusted_proxies: Sequence[IPv4Network | IPv6Network] = ()


SERVICES: web.AppKey[Services] = web.AppKey("services", Services)
CALLER: web.RequestKey[domain.Caller] = web.RequestKey("caller", domain.Caller)
"""Who asks. Of routes that are open to all nobody is asked."""
ACTOR: web.RequestKey[str] = web.RequestKey("actor", str)
"""The caller, as the audit names it."""
