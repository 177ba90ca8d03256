"""Asks the masters and PostgreSQL about what the figures do not explain: once a second, and only while it is so."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from claimsvc.domain import HeldLock, RowHolder
from claimsvc.errors import TransientError
from claimsvc.observability.console.failures import may_be_held, suspect
from claimsvc.observability.console.locks import LockInspection
from claimsvc.observability.console.picture import Picture
from claimsvc.observability.metrics.busiest import OTHER

Look = Callable[[str], Awaitable[Sequence[HeldLock]]]
FindHolders = Callable[[Sequence[str]], Awaitable[Sequence[RowHolder]]]

_LOOK_SECONDS = 1.0
_IDLE_SECONDS = 0.1


class Inspector:
    """What was seen, and the work that sees it.

    Args:
        look: reads a coupon's lock from the masters.
        find_holders: finds sessions of PostgreSQL that hold rows of coupons.
    """

    def __init__(self, look: Look, find_holders: FindHolders) -> None:
        self._look = look
        self._find_holders = find_holders
        self.forget()

    def forget(self) -> None:
        """Forget what was seen."""
        self._suspect: str | None = None
        self._may_be_held: list[str] = []
        self.looked: LockInspection | None = None
        self.holders: tuple[RowHolder, ...] = ()

    def consider(self, picture: Picture) -> None:
        """Note what is to be asked."""
        self._suspect = suspect(picture)
        self._may_be_held = [row.name for row in picture.coupons if row.name != OTHER] if may_be_held(picture) else []

    async def look_at_lock(self) -> None:
        """Read the state of the lock that is to be explained, if there is one."""
        if (name := self._suspect) is None:
            self.looked = None
        else:
            try:
                self.looked = LockInspection(name, tuple(await self._look(name)))
            except TransientError:
                self.looked = LockInspection(name, None)
        await asyncio.sleep(_LOOK_SECONDS if name else _IDLE_SECONDS)

    async def look_at_rows(self) -> None:
        """Find who holds rows, if it may be so."""
        names = self._may_be_held
        try:
            self.holders = tuple(await self._find_holders(names)) if names else ()
        except TransientError:
            self.holders = ()
        await asyncio.sleep(_LOOK_SECONDS if names else _IDLE_SECONDS)
