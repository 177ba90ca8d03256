"""PostgreSQL as the table families use it: a pool of connections, and a time limit for each use of one."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncEngine

from claimsvc.postgres.connections import Driver, UnitOfWork, read, unit_of_work
from claimsvc.postgres.transactions import run_transaction

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Database:
    """Where statements run.

    Args:
        engine: the pool of connections.
        unit_timeout_seconds: how long one unit of work may take, waiting for its connection included.
    """

    engine: AsyncEngine
    unit_timeout_seconds: float

    async def read(self, ask: Callable[[UnitOfWork], Awaitable[_T]]) -> _T:
        """Return what `ask` reads; see `connections.read`."""
        return await read(self.engine, self.unit_timeout_seconds, ask)

    async def run_transaction(
        self, work: Callable[[Driver, bool], Awaitable[_T]], *, timeout_seconds: float | None = None
    ) -> _T:
        """Run `work` in a transaction; see `transactions.run_transaction`.

        Args:
            work: see there.
            timeout_seconds: in place of the usual limit.
        """
        limit = self.unit_timeout_seconds if timeout_seconds is None else timeout_seconds
        return await run_transaction(self.engine, limit, work)

    def unit_of_work(self) -> AbstractAsyncContextManager[UnitOfWork]:
        """Borrow a connection; see `connections.unit_of_work`."""
        return unit_of_work(self.engine, self.unit_timeout_seconds)
