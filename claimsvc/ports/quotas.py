"""Quotas of requests."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

from claimsvc.domain import (
    Quota,
    QuotaStanding,
)

PendingStandings = asyncio.Future[Sequence[QuotaStanding]]


class Quotas(Protocol):
    """Counts requests against quotas. When the counts cannot be read, requests are allowed."""

    @property
    def quotas(self) -> Sequence[Quota]:
        """The configured quotas."""
        ...

    async def take(self, subjects: Mapping[str, str]) -> Sequence[QuotaStanding]:
        """Count a request, unless a quota is exceeded. Never raises, and does not wait for late responses.

        Args:
            subjects: the subject of the request for each quota, by the name of the quota.

        Returns:
            The state of each quota that could be read, up to the first that is exceeded.
        """
        ...

    def begin(self, subjects: Mapping[str, str]) -> PendingStandings:
        """Begin to count a request, as `take` does, without a task of its own."""
        ...
