"""Tickets on a real database whose calls are counted, and fail when a test wants it."""

from collections import Counter
from typing import Any

from claimsvc.errors import UnavailableError
from claimsvc.ports import Tickets


class WatchedTickets:
    """`ports.Tickets` that passes everything on.

    Args:
        tickets: the real ones.
    """

    def __init__(self, tickets: Tickets) -> None:
        self._tickets = tickets
        self.calls: Counter[str] = Counter()
        self.arguments: list[tuple[str, tuple[Any, ...]]] = []
        # Names of methods, and how often each fails before it works again.
        self.failing: Counter[str] = Counter()
        # What is raised instead of the usual failure, however often.
        self.broken: dict[str, Exception] = {}

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._tickets, name)

        async def call(*arguments: Any, **options: Any) -> Any:
            self.calls[name] += 1
            self.arguments.append((name, arguments))
            if name in self.broken:
                raise self.broken[name]
            if self.failing[name] > 0:
                self.failing[name] -= 1
                raise UnavailableError("it was wanted", dependency="postgresql")
            return await real(*arguments, **options)

        return call
