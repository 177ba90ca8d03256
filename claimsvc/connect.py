"""Open PostgreSQL alone, for commands that need nothing else. `bootstrap` builds the whole service."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from sqlalchemy.ext.asyncio import AsyncEngine

from claimsvc import postgres
from claimsvc.config import DatabaseSettings
from claimsvc.errors import SettingsError, UnavailableError
from claimsvc.ports import StorageObserver

if TYPE_CHECKING:
    # Only bootstrap has some, and imports structlog with it, for which commands should not wait.
    from claimsvc.failpoints import Failpoints


class _Unobserved:
    """Observes nothing, for commands: only the service shows metrics."""

    def transaction_ended(self, seconds: float) -> None: ...
    def pool_changed(self, state: str, change: int) -> None: ...
    def invariant_violated(self) -> None: ...


@asynccontextmanager
async def open_repositories(settings: DatabaseSettings) -> AsyncIterator[postgres.Repositories]:
    """Open the storage, for commands that do not need Redis.

    Raises:
        SettingsError: the database does not respond, or its schema is too old.
    """
    async with open_unchecked_repositories(settings, _Unobserved()) as database:
        await require("CLAIMSVC_DATABASE_URL", database.check_schema())
        yield database


@asynccontextmanager
async def open_unchecked_repositories(
    settings: DatabaseSettings, observer: StorageObserver
) -> AsyncIterator[postgres.Repositories]:
    """Open the storage without checking the database, for commands that can continue without it."""
    async with open_engine(settings, observer) as engine:
        yield repositories_on(settings, engine, observer)


@asynccontextmanager
async def open_engine(
    settings: DatabaseSettings, observer: StorageObserver, failpoints: "Failpoints | None" = None
) -> AsyncIterator[AsyncEngine]:
    """Open the connection pool, with the limits of the settings; `failpoints` act within its transactions."""
    connect = {} if failpoints is None else {"connect": failpoints.connect}
    async with postgres.open_engine(settings.database_url, _engine_limits(settings), observer, **connect) as engine:
        yield engine


def repositories_on(
    settings: DatabaseSettings,
    engine: AsyncEngine,
    observer: StorageObserver,
    codes_changed: Callable[[Collection[str | None]], None] = lambda _: None,
) -> postgres.Repositories:
    """The repositories on a pool; `codes_changed` is called with the types of coupons whose codes have changed."""
    return postgres.Repositories.on(
        postgres.Database(engine, unit_timeout_seconds(settings)),
        observer=observer,
        codes_changed=codes_changed,
    )


def unit_timeout_seconds(settings: DatabaseSettings) -> float:
    """The limit of a unit of work, in seconds: a little above the limit of a statement in PostgreSQL."""
    return settings.database_statement_timeout_seconds + 1.0


async def read_database_facts(settings: DatabaseSettings) -> postgres.DatabaseFacts:
    """Read facts about PostgreSQL over a connection like those of the service. Raises as `postgres.read_facts`."""
    async with postgres.open_engine(settings.database_url, _engine_limits(settings), _Unobserved()) as engine:
        return await postgres.read_facts(engine, timeout_seconds=unit_timeout_seconds(settings))


def _engine_limits(settings: DatabaseSettings) -> postgres.EngineLimits:
    return postgres.EngineLimits(
        pool_size=settings.database_pool_size,
        pool_timeout_seconds=settings.database_pool_timeout_seconds,
        connect_timeout_seconds=settings.database_connect_timeout_seconds,
        statement_timeout_seconds=settings.database_statement_timeout_seconds,
        lock_timeout_seconds=settings.database_lock_timeout_seconds,
        idle_in_transaction_timeout_seconds=settings.database_idle_in_transaction_timeout_seconds,
    )


async def require(variable: str, check: Awaitable[None]) -> None:
    """Run a check of the server that a variable names.

    Raises:
        SettingsError: the check failed; the message names the variable.
    """
    try:
        await check
    except UnavailableError as error:
        cause = f" ({error.__cause__.__class__.__name__})" if error.__cause__ else ""
        raise SettingsError(f"{variable}: {error.detail}{cause}; run `claimsvc doctor` for details") from error
