"""Returns the units of expired holds to stock, for coupons that have no claims which would do so."""

from collections.abc import AsyncGenerator
from contextlib import suppress

from claimsvc.errors import ClaimsvcError, UnavailableError
from claimsvc.ports import Counters, Maintenance

_PAGE = 100
# Holds of a chunk. Claims of the coupon wait while a chunk runs, some tens of milliseconds.
CHUNK = 1000


async def sweep(maintenance: Maintenance, counters: Counters, *, chunk: int = CHUNK) -> AsyncGenerator[int, None]:
    """Make one pass over the coupons, by name. Each chunk settles expired holds of one coupon and yields how many.

    If a coupon fails, the pass continues with the next one and raises the first failure at the end.

    Args:
        maintenance: the database.
        counters: receive the units. If Redis cannot be reached, the reconciler corrects the counter later.
        chunk: most holds that one transaction settles.

    Raises:
        ClaimsvcError: settling the holds of a coupon failed.
    """
    after = ""
    failure: ClaimsvcError | None = None
    while names := await maintenance.coupons_with_due_holds(after=after, limit=_PAGE):
        for name in names:
            units = chunk
            while units == chunk:
                try:
                    units = await maintenance.settle_holds(name, limit=chunk)
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
