"""The composition root: builds every part from the settings, and closes the parts in reverse order."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import psycopg
import structlog
from aiohttp import web

from claimsvc import postgres
from claimsvc.application.readiness import Readiness
from claimsvc.claiming.batching import BatchLimits, WaitingRoom
from claimsvc.claiming.combining import Combiner
from claimsvc.claiming.strategies import CounterStrategy, RedlockStrategy, RowLockStrategy, StrategyByCoupon
from claimsvc.config import Settings, renamed_variables
from claimsvc.connect import connection_limits, open_unchecked_repositories, repositories_on, require
from claimsvc.failpoints import Failpoints
from claimsvc.http.app import create_app
from claimsvc.http.framework.services import ForDevelopment, Services
from claimsvc.http.resources.claims.routes import CLAIM_PATH
from claimsvc.http.server.cors import Cors
from claimsvc.http.server.hosts import AllowedHosts
from claimsvc.http.server.under_way import UnderWay
from claimsvc.jobs import Jobs, Schedule, event_loop_watched, repeated
from claimsvc.jobs.code_counts import HEED_SECONDS, CodeCountUpdater, heed_changes, read_counts, refresh_code_counts
from claimsvc.observability.console import Live
from claimsvc.observability.metrics import MeteredJoins, MeteredStrategy, Metrics
from claimsvc.observability.tracing import open_tracing
from claimsvc.ports import (
    AnyClaims,
    Counters,
    Coupons,
    HealthCheck,
    Joins,
    Lock,
    Quotas,
    Strategy,
    TicketObserver,
    Tickets,
    Tokens,
)
from claimsvc.postgres import ConnectionSource
from claimsvc.postgres.fair_source import FairSource
from claimsvc.postgres.pool import Pool, open_pool
from claimsvc.redis.counters import RedisCodeCounters, RedisCounters
from claimsvc.redis.lock import LockAdmin, Redlocks, instance_name, open_redlocks
from claimsvc.redis.masters import Masters, open_masters
from claimsvc.redis.rate_limiter import open_quotas
from claimsvc.tickets.dispatching import TicketDispatcher
from claimsvc.tickets.joining import TicketDesk
from claimsvc.tickets.progress import TicketProgress

if TYPE_CHECKING:
    from claimsvc.observability.tracing.tracing import Tracing

_STOCK_SAMPLE_SECONDS = 2.0
_MEMORY_SAMPLE_SECONDS = 5.0
_QUEUES_SAMPLE_SECONDS = 3.0
# Measured with 64 claiming connections beside 100 that search 200,000 coupons: claims' p99 is 1.1 to 1.7 times what it
# is alone, at 100 to 280 searches a second; with 3 it is twice, and without a rest 4 to 7 times.
_READS_REST_FACTOR = 8.0

_log = structlog.get_logger("claimsvc.server")

migrate = postgres.migrate


@dataclass(frozen=True, slots=True)
class _Base:
    """What all other parts stand on: the two databases, and who observes them."""

    tracing: "Tracing | None"
    metrics: Metrics
    failpoints: Failpoints | None
    code_counts: CodeCountUpdater
    database: postgres.Repositories
    masters: Masters


@asynccontextmanager
async def application(settings: Settings, development: ForDevelopment | None = None) -> AsyncIterator[web.Application]:
    """The complete service, ready to be served. On leaving, accepted claims are finished and everything is closed.

    Args:
        settings: how to run.
        development: what `claimsvc dev` adds.

    Raises:
        SettingsError: a dependency cannot be used as the settings say; the message says what to change.
    """
    _warn_of_renamed_settings()
    async with AsyncExitStack() as stack:
        base = await _open_base(stack, settings)
        instance = instance_name()
        redlocks = await stack.enter_async_context(_open_redlocks(settings, base.masters, base.metrics, instance))
        jobs = _jobs(
            settings,
            redlocks.without_metrics(),
            base.database,
            RedisCounters(base.masters.all),
            base.metrics,
        )
        desk = TicketDesk(base.database.tickets, base.database.admission, waiting_limit=settings.claims_waiting_limit)
        strategy = _claims(settings, base, redlocks, instance, desk)
        stack.push_async_callback(strategy.drain)
        stack.push_async_callback(desk.drain)
        progress = await _open_tickets(stack, base, strategy, desk, instance)
        code_counters = RedisCodeCounters(base.masters.all)
        await stack.enter_async_context(base.code_counts.running(base.database.codes, code_counters))
        for work in _background(settings, base, code_counters, jobs):
            await stack.enter_async_context(work)
        lock_admin = LockAdmin(base.masters.all, base.database.audit_log, ttl_seconds=settings.lock_ttl_seconds)
        readiness = Readiness(_health_checks(base), base.metrics)
        live = _live(settings, base, lock_admin, readiness, instance)
        await stack.enter_async_context(live.running())
        tokens = await stack.enter_async_context(_open_tokens(settings))
        quotas = await stack.enter_async_context(_open_quotas(settings, base))
        services = _services(settings, base, strategy, lock_admin, code_counters, readiness, progress)
        services = replace(services, live=live, tokens=tokens, quotas=quotas)
        await stack.enter_async_context(readiness.watched())
        yield create_app(
            services if development is None else _developed(services, settings, development),
            operators_apart=settings.admin_port is not None,
        )


def _developed(services: Services, settings: Settings, development: ForDevelopment) -> Services:
    hosts = AllowedHosts(
        (*settings.allowed_hosts, *development.hosts), loopback_port=development.port, cors=services.cors
    )
    stress = development.stress(services.live) if development.stress and services.live else None
    return replace(services, stress=stress, hosts=hosts, is_open=development.is_open)


def _allowed_hosts(settings: Settings, cors: Cors | None) -> AllowedHosts | None:
    return AllowedHosts(settings.allowed_hosts, cors=cors) if settings.allowed_hosts else None


def _warn_of_renamed_settings() -> None:
    for each in renamed_variables():
        ignored = f"; it is ignored, because {each.current} is set too" if each.is_ignored else ""
        reason = f"{each.former} is now {each.current}{ignored}"
        _log.warning("setting_renamed", former=each.former, current=each.current, reason=reason)


async def _open_base(stack: AsyncExitStack, settings: Settings) -> _Base:
    """Open and check the databases; `stack` closes them. Raises as `application`."""
    tracing = await stack.enter_async_context(
        open_tracing(settings.tracing_url, traces_per_second=settings.traces_per_second)
    )
    metrics = Metrics(tracing.trace_id if tracing is not None else None)
    stack.callback(metrics.flush)
    metrics.expect_requests("POST", CLAIM_PATH, (201, 404, 409, 500, 503))
    metrics.pool_limited("claims", settings.database_pool_size)
    metrics.pool_limited("reads", settings.database_read_pool_size)
    failpoints = Failpoints.parse(settings.failpoints)
    code_counts = CodeCountUpdater()
    pool = await stack.enter_async_context(_open_pool(settings, metrics, failpoints))
    reads = await stack.enter_async_context(_open_reads(settings, metrics, failpoints))
    database = repositories_on(settings, pool, metrics, code_counts.changed, reads)
    masters = await stack.enter_async_context(_open_masters(settings, metrics))
    await require("CLAIMSVC_DATABASE_URL", database.check_schema())
    await require("CLAIMSVC_REDIS_URLS", masters.check())
    return _Base(tracing, metrics, failpoints, code_counts, database, masters)


async def _open_tickets(
    stack: AsyncExitStack, base: _Base, claims: AnyClaims, desk: TicketDesk, instance: str
) -> TicketProgress:
    """Start tickets, and tell those who watch them, until `stack` is closed."""
    progress = TicketProgress(base.database.tickets)
    await stack.enter_async_context(progress.running())
    tickets = base.database.tickets if base.failpoints is None else base.failpoints.tickets(base.database.tickets)
    dispatcher = TicketDispatcher(tickets, claims, base.metrics, instance=instance, on_change=progress.noticed)
    desk.on_joined = dispatcher.joined
    await stack.enter_async_context(dispatcher.running())
    return progress


def _claims(settings: Settings, base: _Base, redlocks: Redlocks, instance: str, joins: Joins) -> AnyClaims:
    """How claims are admitted, with what observes and disturbs it."""
    lock: Lock = redlocks
    if base.failpoints is not None:
        lock = base.failpoints.lock(lock)
    if base.tracing is not None:
        base.tracing.masters(base.masters.all)
        lock = base.tracing.lock(lock)
    combiner = None if redlocks.post is None else Combiner(instance, redlocks.post, base.metrics)
    strategy = _strategies(settings, base, lock, combiner, joins)
    return strategy if base.failpoints is None else base.failpoints.claims(strategy)


def _background(
    settings: Settings, base: _Base, code_counters: RedisCodeCounters, jobs: Jobs
) -> list[AbstractAsyncContextManager[object]]:
    """The periodic work; each goes on while its context is entered."""
    database, metrics = base.database, base.metrics
    return [
        repeated(partial(refresh_code_counts, database.codes, code_counters), every_seconds=settings.reconcile_seconds),
        repeated(partial(heed_changes, database.codes, base.code_counts), every_seconds=HEED_SECONDS),
        event_loop_watched(metrics.event_loop_lagged),
        repeated(partial(sample_stock_once, database.coupons, metrics), every_seconds=_STOCK_SAMPLE_SECONDS),
        repeated(partial(sample_queues_once, database.tickets, metrics), every_seconds=_QUEUES_SAMPLE_SECONDS),
        repeated(base.masters.sample_memory, every_seconds=_MEMORY_SAMPLE_SECONDS),
        jobs.running(Schedule(settings.sweep_seconds, settings.reconcile_seconds, settings.purge_seconds)),
    ]


def _live(settings: Settings, base: _Base, lock_admin: LockAdmin, readiness: Readiness, instance: str) -> Live:
    return Live(
        base.metrics,
        base.masters.all,
        base.database.coupons.stock,
        lock_admin.look,
        base.database.row_holders.find,
        readiness.report,
        base.database.tickets.statuses,
        instance=instance,
        pool_size=settings.database_pool_size,
    )


def _health_checks(base: _Base) -> Mapping[str, HealthCheck]:
    return {"postgresql": base.database.check_schema, "redis": base.masters.check}


def _services(
    settings: Settings,
    base: _Base,
    strategy: AnyClaims,
    lock_admin: LockAdmin,
    code_counters: RedisCodeCounters,
    readiness: Readiness,
    progress: TicketProgress,
) -> Services:
    """What the routes need, without what depends on optional settings."""
    database = base.database
    cors = Cors(settings.cors_origins) if settings.cors_origins else None
    return Services(
        strategy=strategy,
        coupons=database.coupons,
        claim_records=database.claims,
        campaigns=database.campaigns,
        transitions=database.claims,
        codes=database.codes,
        count_codes=partial(read_counts, database.codes, code_counters),
        audience=database.audience,
        tickets=database.tickets,
        progress=progress,
        lock_admin=lock_admin,
        audit=database.audit_log,
        exports=database.exports,
        erasure=database.erasure,
        readiness=readiness,
        observer=base.metrics,
        ticket_observer=base.metrics,
        begin_render_metrics=base.metrics.begin_render,
        admin_key_digests=settings.admin_keys,
        api_keys=database.keys,
        body_timeout_seconds=settings.body_timeout_seconds,
        log_requests_per_second=settings.log_requests_per_second,
        tracer=base.tracing.requests if base.tracing is not None else None,
        trusted_proxies=settings.trusted_proxies,
        cors=cors,
        hosts=_allowed_hosts(settings, cors),
        under_way=_under_way(settings),
    )


def _under_way(settings: Settings) -> UnderWay | None:
    most = settings.claims_under_way_per_address
    if most is None:
        return None
    return UnderWay(most, settings.trusted_proxies, timeout_seconds=settings.claim_queue_timeout_seconds)


@asynccontextmanager
async def _open_tokens(settings: Settings) -> AsyncIterator[Tokens | None]:
    if settings.jwt_jwks is None or settings.jwt_issuer is None or settings.jwt_audience is None:
        _log.warning("claiming_is_open", reason="CLAIMSVC_JWT_JWKS is not set, so anyone may claim for any user")
        yield None
        return
    # Imported here, because cryptography is slow to import, and only a service with tokens needs it.
    from claimsvc.identity.tokens import REFRESH_SECONDS, open_tokens

    async with (
        open_tokens(settings.jwt_jwks, issuer=settings.jwt_issuer, audience=settings.jwt_audience) as tokens,
        repeated(tokens.refresh, every_seconds=REFRESH_SECONDS),
    ):
        yield tokens


def _open_quotas(settings: Settings, base: _Base) -> AbstractAsyncContextManager[Quotas | None]:
    if not settings.quotas():
        return nullcontext()
    return open_quotas(base.masters.all, settings.quotas(), base.metrics)


def _strategies(
    settings: Settings, base: _Base, lock: Lock, combiner: Combiner | None, joins: Joins
) -> StrategyByCoupon:
    database, metrics, tracing = base.database, base.metrics, base.tracing
    limits = BatchLimits(
        batch_size=settings.batch_size,
        lock_timeout_seconds=settings.lock_retries * settings.lock_retry_wait_seconds,
        queue_timeout_seconds=settings.claim_queue_timeout_seconds,
        claim_timeout_seconds=settings.claim_timeout_seconds,
    )
    room = WaitingRoom(settings.claims_waiting_limit, metrics, tracing.work if tracing is not None else None)
    admission = database.admission if tracing is None else tracing.admission(database.admission)
    strategies: tuple[Strategy, ...] = (
        RedlockStrategy(
            lock,
            admission,
            slice_seconds=settings.lock_slice_seconds,
            limits=limits,
            room=room,
            observer=metrics,
            combiner=combiner,
        ),
        RowLockStrategy(admission, limits=limits, room=room, observer=metrics),
        CounterStrategy(
            RedisCounters(base.masters.all), admission, database.coupons, limits=limits, room=room, observer=metrics
        ),
    )
    outermost: list[Strategy] = [MeteredStrategy(each, metrics) for each in strategies]
    if tracing is not None:
        outermost = [tracing.strategy(each) for each in outermost]
    return StrategyByCoupon(
        {each.name: each for each in outermost},
        database.coupons,
        database.admission.look,
        timeout_seconds=settings.claim_timeout_seconds,
        joins=MeteredJoins(joins, metrics),
    )


@asynccontextmanager
async def open_jobs(settings: Settings) -> AsyncIterator[Jobs]:
    """Open the jobs, for the commands that run one. Raises as `application`."""
    metrics = Metrics()
    async with (
        _open_pool(settings, metrics) as pool,
        _open_masters(settings, metrics) as masters,
        _open_redlocks(settings, masters, metrics) as redlocks,
    ):
        database = repositories_on(settings, pool, metrics)
        await require("CLAIMSVC_DATABASE_URL", database.check_schema())
        await require("CLAIMSVC_REDIS_URLS", masters.check())
        lock, counters = redlocks.without_metrics(), RedisCounters(masters.all)
        yield _jobs(settings, lock, database, counters, metrics, wait_for_lock=True)


@asynccontextmanager
async def open_lock_admin(settings: Settings) -> AsyncIterator[LockAdmin]:
    """Open what lists and releases locks, for the commands. PostgreSQL is not checked before a lock is released.

    Raises:
        UnavailableError: a majority of the masters does not respond.
    """
    metrics = Metrics()
    async with open_unchecked_repositories(settings) as database, _open_masters(settings, metrics) as masters:
        await masters.check()
        yield LockAdmin(masters.all, database.audit_log, ttl_seconds=settings.lock_ttl_seconds)


def _jobs(
    settings: Settings,
    lock: Lock,
    database: postgres.Repositories,
    counters: Counters,
    metrics: Metrics,
    *,
    wait_for_lock: bool = False,
) -> Jobs:
    return Jobs(
        lock,
        database.coupons,
        database.maintenance,
        counters,
        metrics,
        settle_seconds=settings.claim_queue_timeout_seconds,
        drifted=metrics.counter_drifted,
        purge_after_days=settings.purge_after_days,
        wait_for_lock=wait_for_lock,
    )


def _open_redlocks(
    settings: Settings, masters: Masters, metrics: Metrics, instance: str | None = None
) -> AbstractAsyncContextManager[Redlocks]:
    return open_redlocks(
        masters.all,
        ttl_seconds=settings.lock_ttl_seconds,
        retries=settings.lock_retries,
        retry_wait_seconds=settings.lock_retry_wait_seconds,
        observer=metrics,
        instance=instance,
        # Jobs of a command decide no claims.
        combines=instance is not None and settings.combining == "on",
    )


def _open_pool(
    settings: Settings, metrics: Metrics, failpoints: Failpoints | None = None
) -> AbstractAsyncContextManager[Pool]:
    connect = psycopg.AsyncConnection.connect if failpoints is None else failpoints.connect
    return open_pool(settings.database_url, connection_limits(settings), metrics, connect)


@asynccontextmanager
async def _open_reads(
    settings: Settings, metrics: Metrics, failpoints: Failpoints | None
) -> AsyncIterator[ConnectionSource]:
    """The pool for slow reads. Its clients take turns."""
    size, timeout_seconds = settings.database_read_pool_size, settings.database_read_pool_timeout_seconds
    limits = replace(connection_limits(settings), pool_size=size)
    connect = psycopg.AsyncConnection.connect if failpoints is None else failpoints.connect
    async with open_pool(settings.database_url, limits, metrics, connect, name="reads", is_for_reads=True) as pool:
        yield FairSource(pool, size=size, timeout_seconds=timeout_seconds, rest_factor=_READS_REST_FACTOR)


def _open_masters(settings: Settings, metrics: Metrics) -> AbstractAsyncContextManager[Masters]:
    return open_masters(
        settings.redis_urls,
        timeout_seconds=settings.redis_timeout_seconds,
        pool_size=settings.redis_pool_size,
        observer=metrics,
    )


async def sample_stock_once(coupons: Coupons, metrics: Metrics) -> None:
    if names := metrics.coupons.names():
        for coupon in await coupons.stock(names):
            metrics.stock_sampled(coupon)


async def sample_queues_once(tickets: Tickets, observer: TicketObserver) -> None:
    """Read the state of all queues from the database, and report it."""
    observer.queues_sampled(await tickets.statuses())
