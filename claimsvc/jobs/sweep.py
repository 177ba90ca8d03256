"""Giving back the units of holds that are over, for coupons whose claims do not come to do so."""

from collections.abc import AsyncGenerator
from contextlib import suppress

from claimsvc.errors import ClaimsvcError, UnavailableError
from claimsvc.ports import Counters, Maintenance

_PAGE = 100
# Holds of a chunk: some tens of milliseconds, for which claims of the coupon wait.
CHUNK = 1000


async def sweep(upkeep: Maintenance, counters: Counters, *, chunk: int = CHUNK) -> AsyncGenerator[int, None]:
    """One pass over the coupons, by name: a chunk is holds of one coupon that are over, and tells how many.

    A coupon of which that fails keeps no other from its turn; the first such failure is raised at the end.

    Args:
        counters: told of the units. One that cannot be reached is set right by the reconciler.
        chunk: most holds that a transaction ends.
    """
    after = ""
    failure: ClaimsvcError | None = None
    while names := await upkeep.coupons_with_due_holds(after=after, limit=_PAGE):
        for name in names:
            units = chunk
            while units == chunk:
                try:
                    units = await upkeep.settle_holds(name, limit=chunk)
                except ClaimsvcError as error:
                    failure = failure or error
                    break
                if units:
                    with suppress(UnavailableError):
                        await counters.give_back(name, units)
                yield units
        after = names[-1]
    if failure is not None:
        raise failure
