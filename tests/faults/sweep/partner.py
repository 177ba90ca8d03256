"""A second instance, which combines with the service under the sweep. No proxy is before its servers."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from claimsvc.domain import AlreadyClaimed, Claimed, ClaimOutcome, StrategyName
from claimsvc.domain.outcomes import name_of
from claimsvc.errors import ClaimsvcError
from tests.faults.sweep.claims import Answer, Claimant
from tests.support.strategy_instances import Instance, open_instance


class Partner:
    """The other instance: users claim from it, too."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance

    async def ask_all(self, those: Sequence[Claimant]) -> list[Answer]:
        """Claim for all of them at once."""
        return await asyncio.gather(*map(self._ask, those))

    async def _ask(self, claimant: Claimant) -> Answer:
        started = time.monotonic()
        try:
            outcome: ClaimOutcome = await self._instance.strategy.claim(claimant.coupon_name, claimant.user_id)
        except ClaimsvcError as error:
            return Answer(503, name_of(error), "", time.monotonic() - started)
        claim_id = outcome.claim.id if isinstance(outcome, Claimed | AlreadyClaimed) else ""
        status, problem = (201, "") if isinstance(outcome, Claimed) else (409, name_of(outcome))
        return Answer(status, problem, claim_id, time.monotonic() - started)


@asynccontextmanager
async def open_partner(database_url: str, redis_urls: Sequence[str]) -> AsyncIterator[Partner]:
    async with open_instance(StrategyName.REDLOCK, database_url, tuple(redis_urls)) as instance:
        yield Partner(instance)
