"""Removing what nobody asks for any more."""

from collections.abc import AsyncGenerator
from contextlib import suppress

from claimsvc.domain import PurgeReport
from claimsvc.errors import ClaimsvcError, UnavailableError
from claimsvc.ports import Counters, Maintenance

_PAGE = 100
# Rows of a chunk: some tens of milliseconds, for which an ended coupon's row is locked.
CHUNK = 1000


async def purge(
    upkeep: Maintenance, counters: Counters, report: PurgeReport, *, after_days: int, actor: str, chunk: int = CHUNK
) -> AsyncGenerator[int, None]:
    """One pass: answers whose time is over, lists that were replaced, then coupons by name. A chunk tells its rows.

    A coupon of which it fails keeps no other from its turn; the first such failure is raised at the end.

    Args:
        counters: forget the coupons that are gone, as far as they can be reached.
        report: what is removed is added to it.
        after_days: how long a coupon stays after it has ended or was archived, whichever came first; 0 for ever.
        actor: for the audit, in which each transaction that removes anything of a coupon has an entry.
        chunk: most rows of a table that a transaction removes.
    """
    while answers := await upkeep.purge_answers(limit=chunk):
        report.answers += answers
        yield answers
    while entries := await upkeep.purge_lists(limit=chunk):
        report.list_entries += entries
        yield entries
    after = ""
    failure: ClaimsvcError | None = None
    while after_days and (names := await upkeep.coupons_over(after=after, limit=_PAGE, for_days=after_days)):
        for name in names:
            try:
                async for rows in _purge_coupon(upkeep, name, report, after_days, actor, chunk):
                    yield rows
            except ClaimsvcError as error:
                failure = failure or error
                continue
            with suppress(UnavailableError):
                await _forget(counters, name)
        after = names[-1]
    if failure is not None:
        raise failure


async def _purge_coupon(
    upkeep: Maintenance, name: str, report: PurgeReport, after_days: int, actor: str, chunk: int
) -> AsyncGenerator[int, None]:
    """Until it is gone, or there is nothing to be removed of it (any more): its end may have been put off."""
    while True:
        purged = await upkeep.purge_coupon(name, for_days=after_days, limit=chunk, actor=actor)
        if not purged.rows:
            return
        report.add(purged)
        yield purged.rows
        if purged.coupons:
            return


async def _forget(counters: Counters, name: str) -> None:
    """Another coupon of this name, made later, is to begin with a count of its own."""
    count = await counters.count(name)
    if count is not None:
        await counters.forget(name, count)


async def purgeable(upkeep: Maintenance, *, after_days: int) -> PurgeReport:
    """What a pass would remove now."""
    report = await upkeep.count_purgeable()
    after = ""
    while after_days and (names := await upkeep.coupons_over(after=after, limit=_PAGE, for_days=after_days)):
        for name in names:
            report.add(await upkeep.count_coupon(name))
        after = names[-1]
    return report
