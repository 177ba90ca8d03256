"""The composition root: builds every part from the settings and takes them down in reverse order."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from aiohttp import web

from claimsvc import storage
from claimsvc.api import Services, StressTests, create_app
from claimsvc.batching import BatchLimits, WaitingRoom
from claimsvc.config import DatabaseSettings, Settings
from claimsvc.counters import RedisCounters
from claimsvc.errors import SettingsError, UnavailableError
from claimsvc.failpoints import Failpoints
from claimsvc.jobs import Drift, event_loop_watched, reconcile_once, repeated
from claimsvc.live import Live
from claimsvc.lock import open_redlocks
from claimsvc.masters import open_masters
from claimsvc.metrics import MeteredStrategy, Metrics
from claimsvc.ports import Claims, Counters, Lock, Storage, Strategy
from claimsvc.strategies import CounterStrategy, RedlockStrategy, RowLockStrategy, StrategyByCoupon

_STOCK_SAMPLE_SECONDS = 2.0

migrate = storage.migrate


@asynccontextmanager
async def application(
    settings: Settings, *, stress: Callable[[Live], StressTests] | None = None
) -> AsyncIterator[web.Application]:
    """The whole service, ready to be served; on leaving, accepted claims are finished and everything is closed.

    Args:
        settings: how to run.
        stress: makes what fires the stress test from the console; for development alone.

    Raises:
        SettingsError: a dependency cannot be used as it is set up; the message says what to change.
    """
    async with AsyncExitStack() as stack:
        metrics = Metrics()
        stack.callback(metrics.flush)
        failpoints = Failpoints.parse(settings.failpoints)
        database = await stack.enter_async_context(_open_storage(settings, metrics, failpoints))
        masters = await stack.enter_async_context(
            open_masters(
                settings.redis_urls,
                timeout_seconds=settings.redis_timeout_seconds,
                pool_size=settings.redis_pool_size,
                observer=metrics,
            )
        )
        await _require("CLAIMSVC_DATABASE_URL", database.check())
        await _require("CLAIMSVC_REDIS_URLS", masters.check())
        lock: Lock = await stack.enter_async_context(
            open_redlocks(
                masters.all,
                ttl_seconds=settings.lock_ttl_seconds,
                retries=settings.lock_retries,
                retry_wait_seconds=settings.lock_retry_wait_seconds,
                observer=metrics,
            )
        )
        if failpoints is not None:
            lock = failpoints.lock(lock)
        strategy: Claims = _strategies(settings, lock, RedisCounters(masters.all), database, metrics)
        if failpoints is not None:
            strategy = failpoints.claims(strategy)
        stack.push_async_callback(strategy.drain)
        await stack.enter_async_context(event_loop_watched(metrics.event_loop_lagged))
        await stack.enter_async_context(
            repeated(partial(sample_stock_once, database, metrics), every_seconds=_STOCK_SAMPLE_SECONDS)
        )
        reconcile = _reconciler(settings, database, RedisCounters(masters.all), metrics)
        await stack.enter_async_context(repeated(reconcile, every_seconds=settings.reconcile_seconds))
        live = Live(metrics, masters.all, database.stock, pool_size=settings.database_pool_size)
        await stack.enter_async_context(live.running())
        yield create_app(
            Services(
                strategy=strategy,
                storage=database,
                health_checks={"postgresql": database.check, "redis": masters.check},
                observer=metrics,
                render_metrics=metrics.render,
                admin_key_digests=settings.admin_keys,
                body_timeout_seconds=settings.body_timeout_seconds,
                live=live,
                stress=stress(live) if stress is not None else None,
            )
        )


def _strategies(
    settings: Settings, lock: Lock, counters: Counters, database: Storage, metrics: Metrics
) -> StrategyByCoupon:
    limits = BatchLimits(
        batch_size=settings.batch_size,
        lock_patience_seconds=settings.lock_retries * settings.lock_retry_wait_seconds,
        patience_seconds=settings.claim_patience_seconds,
        claim_timeout_seconds=settings.claim_timeout_seconds,
    )
    room = WaitingRoom(settings.claims_waiting_limit, metrics)
    strategies: tuple[Strategy, ...] = (
        RedlockStrategy(
            lock, database, slice_seconds=settings.lock_slice_seconds, limits=limits, room=room, observer=metrics
        ),
        RowLockStrategy(database, limits=limits, room=room, observer=metrics),
        CounterStrategy(counters, database, limits=limits, room=room, observer=metrics),
    )
    return StrategyByCoupon(
        {each.name: MeteredStrategy(each, metrics) for each in strategies},
        database,
        timeout_seconds=settings.claim_timeout_seconds,
    )


@asynccontextmanager
async def open_storage(settings: DatabaseSettings) -> AsyncIterator[Storage]:
    """The storage alone, for commands that need no lock.

    Raises:
        SettingsError: the database cannot be used as it is set up.
    """
    async with _open_storage(settings, Metrics()) as database:
        await _require("CLAIMSVC_DATABASE_URL", database.check())
        yield database


@asynccontextmanager
async def open_reconciler(settings: Settings) -> AsyncIterator[Callable[[], Awaitable[list[Drift]]]]:
    """One pass of the reconciler, for the command that runs it by hand. Raises as `application`."""
    metrics = Metrics()
    async with (
        _open_storage(settings, metrics) as database,
        open_masters(
            settings.redis_urls,
            timeout_seconds=settings.redis_timeout_seconds,
            pool_size=settings.redis_pool_size,
            observer=metrics,
        ) as masters,
    ):
        await _require("CLAIMSVC_DATABASE_URL", database.check())
        await _require("CLAIMSVC_REDIS_URLS", masters.check())
        yield _reconciler(settings, database, RedisCounters(masters.all), metrics)


@asynccontextmanager
async def _open_storage(
    settings: DatabaseSettings, metrics: Metrics, failpoints: Failpoints | None = None
) -> AsyncIterator[storage.PostgresStorage]:
    limits = storage.EngineLimits(
        pool_size=settings.database_pool_size,
        pool_timeout_seconds=settings.database_pool_timeout_seconds,
        connect_timeout_seconds=settings.database_connect_timeout_seconds,
        statement_timeout_seconds=settings.database_statement_timeout_seconds,
        lock_timeout_seconds=settings.database_lock_timeout_seconds,
        idle_in_transaction_timeout_seconds=settings.database_idle_in_transaction_timeout_seconds,
    )
    async with storage.open_engine(settings.database_url, limits, metrics) as engine:
        if failpoints is not None:
            failpoints.transactions(engine)
        yield storage.PostgresStorage(
            engine,
            unit_timeout_seconds=settings.database_statement_timeout_seconds + 1.0,
            observer=metrics,
        )


async def _require(variable: str, check: Awaitable[None]) -> None:
    try:
        await check
    except UnavailableError as error:
        cause = f" ({error.__cause__.__class__.__name__})" if error.__cause__ else ""
        raise SettingsError(f"{variable}: {error.detail}{cause}") from error


def _reconciler(
    settings: Settings, database: Storage, counters: Counters, metrics: Metrics
) -> Callable[[], Awaitable[list[Drift]]]:
    return partial(
        reconcile_once,
        database,
        counters,
        settle_seconds=settings.claim_patience_seconds,
        observe=metrics.counter_drifted,
    )


async def sample_stock_once(database: Storage, metrics: Metrics) -> None:
    if names := metrics.coupons.names():
        for coupon in await database.stock(names):
            metrics.stock_sampled(coupon)
