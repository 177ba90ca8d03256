"""Bounds what all connections keep of requests that have not arrived completely, or that wait for another one.

Each connection has limits of its own, but thousands of them together would fill the memory. When the sum is over its
limit, the connection that keeps most is refused, of the address that keeps most: a client that sends a request whole,
and after the answer to the one before, is never the one.
"""

from typing import Protocol

# What the stream of a body and its reader keep at most, however long the body is.
MAX_BODY_BUFFER_BYTES = 131_072


class Unfinished(Protocol):
    """A connection with a request that has not arrived completely."""

    def refuse_unfinished(self) -> None:
        """Refuse that request, and free what is kept of it."""
        ...


class UnfinishedRequests:
    """Counts the bytes of unfinished requests by connection and address.

    Args:
        limit_bytes: for all connections together.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._bytes = 0
        self._bytes_of: dict[str | None, int] = {}
        self._kept: dict[str | None, dict[Unfinished, int]] = {}

    @property
    def total_bytes(self) -> int:
        """The sum over all connections."""
        return self._bytes

    def keeps(self, connection: Unfinished, address: str | None, size: int) -> None:
        """Note how many bytes a connection keeps now; 0 if its request is complete, or the connection has ended."""
        of_address = self._kept.setdefault(address, {})
        grown = size - of_address.pop(connection, 0)
        if size:
            of_address[connection] = size
        self._bytes += grown
        self._bytes_of[address] = self._bytes_of.get(address, 0) + grown
        if not of_address:
            del self._kept[address], self._bytes_of[address]
        while self._bytes > self._limit_bytes and grown > 0:
            self._refuse_largest()

    def _refuse_largest(self) -> None:
        address = max(self._bytes_of, key=self._bytes_of.__getitem__)
        of_address = self._kept[address]
        connection = max(of_address, key=of_address.__getitem__)
        self.keeps(connection, address, 0)
        connection.refuse_unfinished()
