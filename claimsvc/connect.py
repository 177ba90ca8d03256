"""Open PostgreSQL alone, for commands that need nothing else. `bootstrap` builds the whole service."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import aclosing, asynccontextmanager

from claimsvc import postgres
from claimsvc.config import DatabaseSettings
from claimsvc.domain import QueueStatus, RowHolder
from claimsvc.errors import SettingsError, UnavailableError
from claimsvc.ports import StorageObserver


class _Unobserved:
    """Observes nothing, for commands: only the service shows metrics."""

    def transaction_ended(self, seconds: float) -> None: ...
    def pool_changed(self, pool: str, state: str, change: int) -> None: ...
    def invariant_violated(self) -> None: ...


@asynccontextmanager
async def open_repositories(settings: DatabaseSettings) -> AsyncIterator[postgres.Repositories]:
    """Open the repositories, for commands that do not need Redis.

    Raises:
        SettingsError: the database does not respond, or its schema is too old.
    """
    async with open_unchecked_repositories(settings) as repositories:
        await require("CLAIMSVC_DATABASE_URL", repositories.check_schema())
        yield repositories


@asynccontextmanager
async def open_unchecked_repositories(settings: DatabaseSettings) -> AsyncIterator[postgres.Repositories]:
    """Open the repositories without checking the database: for commands that can continue without it."""
    async with _open_connection(settings) as source:
        yield repositories_on(settings, source, _Unobserved())


@asynccontextmanager
async def _open_connection(settings: DatabaseSettings) -> AsyncIterator[postgres.SingleConnection]:
    # Not a pool: a command would not use it, and importing SQLAlchemy's takes 0.3 s.
    async with aclosing(postgres.SingleConnection(settings.database_url, connection_limits(settings))) as source:
        yield source


def repositories_on(
    settings: DatabaseSettings,
    source: postgres.ConnectionSource,
    observer: StorageObserver,
    codes_changed: Callable[[Collection[str | None]], None] | None = None,
    reads: postgres.ConnectionSource | None = None,
) -> postgres.Repositories:
    """The repositories on a source of connections.

    Args:
        settings: have the limits.
        source: lends connections.
        observer: receives transactions and violated invariants.
        codes_changed: called with the types of coupons whose codes have changed; None leaves marks for an instance of
            the service.
        reads: lends connections to slow reads; `source` if None.
    """
    timeout_seconds = unit_timeout_seconds(settings)
    return postgres.Repositories.on(
        postgres.Database(source, timeout_seconds),
        reads=None if reads is None else postgres.Database(reads, timeout_seconds),
        observer=observer,
        codes_changed=codes_changed,
    )


def unit_timeout_seconds(settings: DatabaseSettings) -> float:
    """The limit of a unit of work, in seconds: a little above the limit of a statement in PostgreSQL."""
    return settings.database_statement_timeout_seconds + 1.0


async def read_database_facts(settings: DatabaseSettings) -> postgres.DatabaseFacts:
    """Read facts about PostgreSQL over a connection like those of the service. Raises as `postgres.read_facts`."""
    async with _open_connection(settings) as source:
        return await postgres.read_facts(source, timeout_seconds=unit_timeout_seconds(settings))


async def read_row_holders(settings: DatabaseSettings) -> list[RowHolder]:
    """Find who holds rows of coupons, over a connection likewise.

    Raises:
        UnavailableError: PostgreSQL does not answer, or has no schema.
    """
    async with open_unchecked_repositories(settings) as repositories:
        return await repositories.row_holders.find()


async def read_queues(settings: DatabaseSettings) -> list[QueueStatus]:
    """Read the state of all queues, over a connection likewise. Raises as `read_row_holders`."""
    async with open_unchecked_repositories(settings) as repositories:
        return await repositories.tickets.statuses()


def connection_limits(settings: DatabaseSettings) -> postgres.ConnectionLimits:
    """The limits of connections and of their pool."""
    return postgres.ConnectionLimits(
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
        SettingsError: the check failed; the message names the variable, and says why and what to do.
    """
    try:
        await check
    except UnavailableError as error:
        why = f": {error.trouble}" if error.trouble is not None else ""
        raise SettingsError(f"{variable}: {error.detail}{why}; run `claimsvc doctor` for details") from error
