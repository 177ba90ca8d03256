"""How often a caller may ask."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from claimsvc.domain import (
    Quota,
    QuotaStanding,
)


class Quotas(Protocol):
    """How often somebody may ask, for as long as that can be learnt: whatever cannot is let through."""

    @property
    def quotas(self) -> Sequence[Quota]:
        """Those that there are."""
        ...

    async def take(self, subjects: Mapping[str, str]) -> Sequence[QuotaStanding]:
        """Count a request, unless a quota is exceeded. It raises nothing, and waits for nothing that is late.

        Args:
            subjects: whose request it is, by the names of the quotas.

        Returns:
            How the subjects stand, without those of whom that cannot be learnt. The first quota that is exceeded is the
            last one that was asked about.
        """
        ...
