"""The database as repositories use it: a pool of connections, and a time limit for each use of one."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

from psycopg.rows import dict_row

from claimsvc.postgres.connections import ConnectionSource, Driver, database_failures, read, unavailable, unit_of_work
from claimsvc.postgres.transactions import run_transaction

_T = TypeVar("_T")
_NONE: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Database:
    """Where statements run. All methods raise `UnavailableError` when PostgreSQL does not answer in time.

    Args:
        source: lends connections.
        unit_timeout_seconds: how long one unit of work may take, waiting for its connection included.
    """

    source: ConnectionSource
    unit_timeout_seconds: float

    async def fetch(self, statement: str, parameters: Mapping[str, Any] = _NONE) -> list[tuple[Any, ...]]:
        """Run a statement that only reads, and return its rows."""

        async def query(driver: Driver) -> list[tuple[Any, ...]]:
            return await (await driver.execute(statement.encode(), parameters)).fetchall()

        return await self.read(query)

    async def fetch_dicts(self, statement: str, parameters: Mapping[str, Any] = _NONE) -> list[dict[str, Any]]:
        """Run a statement that only reads, and return its rows as dictionaries by column."""

        async def query(driver: Driver) -> list[dict[str, Any]]:
            cursor = driver.cursor(row_factory=dict_row)
            return await (await cursor.execute(statement.encode(), parameters)).fetchall()

        return await self.read(query)

    async def write_once(self, statement: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Run a statement that must not be repeated, as a transaction by itself, and return its rows.

        If the connection is lost, `UnavailableError` is raised although the statement may have been committed.
        """
        try:
            async with unit_of_work(self.source, self.unit_timeout_seconds) as driver:
                done = await driver.cursor(row_factory=dict_row).execute(statement.encode(), parameters)
                return await done.fetchall() if done.description else []
        except database_failures as error:
            raise unavailable(error) from error

    async def read(self, query: Callable[[Driver], Awaitable[_T]]) -> _T:
        """Run `query` and return its result; see `connections.read`."""
        return await read(self.source, self.unit_timeout_seconds, query)

    async def run_transaction(
        self, work: Callable[[Driver, bool], Awaitable[_T]], *, timeout_seconds: float | None = None
    ) -> _T:
        """Run `work` in a transaction; see `transactions.run_transaction`.

        Args:
            work: see there.
            timeout_seconds: overrides `unit_timeout_seconds`.
        """
        limit = self.unit_timeout_seconds if timeout_seconds is None else timeout_seconds
        return await run_transaction(self.source, limit, work)
