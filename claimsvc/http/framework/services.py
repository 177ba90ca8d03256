"""What the routes use. The composition root builds it."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Protocol

from aiohttp import web

from claimsvc import domain, ports
from claimsvc.application.readiness import Readiness
from claimsvc.http.server.cors import Cors
from claimsvc.http.server.hosts import AllowedHosts
from claimsvc.http.server.observers import HttpObserver, NoObserver, RequestTracer
from claimsvc.http.server.under_way import UnderWay
from claimsvc.observability.console import Live


class StressTests(Protocol):
    """Runs the stress test against this service, in development."""

    @property
    def scenarios(self) -> Collection[str]:
        """The names of the scenarios."""
        ...

    def start(self, scenario: str) -> bool:
        """Start a scenario. Returns False if one is running already."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What the routes use.

    Args:
        strategy: makes claims.
        coupons: reads coupons.
        claim_records: reads claims.
        campaigns: creates and changes coupons.
        transitions: confirms and cancels claims.
        codes: adds, reads and redeems codes.
        count_codes: counts the codes of a type of coupons (None: of coupons without a type); may be slightly outdated.
        audience: eligibility, and the allow and deny lists.
        tickets: stores queues and the tickets in them.
        progress: tells those who watch tickets what becomes of them.
        lock_admin: lists locks and releases them by force.
        audit: reads the audit.
        exports: exports claims.
        erasure: erases users.
        readiness: whether this instance may be sent requests.
        observer: receives each request that was answered.
        ticket_observer: receives the ends of tickets that leave; None if nobody asks.
        begin_render_metrics: takes an `Accept` header, in the event loop; returns what renders the metrics, in
            a thread, and returns them with their content type.
        admin_key_digests: SHA-256 digests, in lower-case hex, of keys with every scope.
        api_keys: looks up keys with scopes.
        tokens: verifies users' tokens; None if users need no tokens, and every caller may claim for every user.
        body_timeout_seconds: how long a request's body may take to arrive.
        log_requests_per_second: how many requests with a status below 500 are logged each second before sampling
            begins.
        tracer: traces claims; None if they are not traced.
        live: the console's live picture; None without a console.
        stress: runs the stress test; None except in development.
        quotas: the quotas on claiming; None if there are none.
        trusted_proxies: the networks of proxies whose `X-Forwarded-For` is trusted.
        under_way: the cap on claims under way of each address; None without one.
        cors: which pages of other origins may use the API; None if none may.
        hosts: which hosts requests that change something may be addressed to; None for all.
        is_open: whether coupons can be created without a key, which only `claimsvc dev --open` allows.
    """

    strategy: ports.AnyClaims
    coupons: ports.Coupons
    claim_records: ports.ClaimRecords
    campaigns: ports.Campaigns
    transitions: ports.Transitions
    codes: ports.Codes
    count_codes: Callable[[str | None], Awaitable[domain.CodeCounts]]
    audience: ports.Audience
    tickets: ports.Tickets
    progress: ports.Progress
    lock_admin: ports.LockAdmin
    audit: ports.AuditLog
    exports: ports.Exports
    erasure: ports.Erasure
    readiness: Readiness
    observer: HttpObserver = field(default_factory=NoObserver)
    ticket_observer: ports.TicketObserver | None = None
    begin_render_metrics: Callable[[str], Callable[[], tuple[bytes, str]]]
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
    under_way: UnderWay | None = None
    cors: Cors | None = None
    hosts: AllowedHosts | None = None
    is_open: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ForDevelopment:
    """What `claimsvc dev` adds to a service.

    Args:
        port: the port it listens on; requests that change something must be addressed to it, on this machine.
        hosts: further hosts that they may be addressed to.
        stress: makes what runs the stress test from the console.
        is_open: see `Services`.
    """

    port: int
    hosts: tuple[str, ...] = ()
    stress: Callable[[Live], StressTests] | None = None
    is_open: bool = False


SERVICES: web.AppKey[Services] = web.AppKey("services", Services)
CALLER: web.RequestKey[domain.Caller] = web.RequestKey("caller", domain.Caller)
"""The authenticated caller; `domain.ANYBODY` if the route needs no authentication."""
ACTOR: web.RequestKey[str] = web.RequestKey("actor", str)
"""The caller's name in the audit."""
