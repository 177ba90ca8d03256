"""Removes what is no longer needed: expired answers, replaced lists, batches of which no copy is left, ended tickets.

Coupons that ended long ago go, too.
"""

from collections.abc import AsyncGenerator
from contextlib import suppress

from claimsvc.domain import PurgeReport
from claimsvc.errors import ClaimsvcError, UnavailableError
from claimsvc.ports import Counters, Maintenance

_PAGE = 100
# Rows of a chunk. The ended coupon's row is locked while a chunk runs, some tens of milliseconds.
CHUNK = 1000


async def purge(
    maintenance: Maintenance,
    counters: Counters,
    report: PurgeReport,
    *,
    after_days: int,
    actor: str,
    chunk: int = CHUNK,
) -> AsyncGenerator[int, None]:
    """Make one pass: expired answers, replaced lists, old handed batches, ended tickets, then coupons by name.

    Yields the number of rows of each chunk.

    If purging a coupon fails, the pass continues with the next one and raises the first failure at the end.

    Args:
        maintenance: the database.
        counters: the counters of removed coupons are deleted, if Redis can be reached.
        report: the numbers of removed rows are added to it.
        after_days: days that a coupon is kept after it ended or was archived, whichever came first; 0 keeps it forever.
        actor: for the audit entry of each transaction that removes rows of a coupon.
        chunk: most rows of a table that one transaction removes.

    Raises:
        ClaimsvcError: purging a coupon failed.
    """
    while answers := await maintenance.purge_answers(limit=chunk):
        report.answers += answers
        yield answers
    while entries := await maintenance.purge_lists(limit=chunk):
        report.list_entries += entries
        yield entries
    while batches := await maintenance.purge_fence(limit=chunk):
        yield batches
    while tickets := await maintenance.purge_tickets(limit=chunk):
        report.tickets += tickets
        yield tickets
    after = ""
    failure: ClaimsvcError | None = None
    while after_days and (names := await maintenance.ended_coupons(after=after, limit=_PAGE, for_days=after_days)):
        for name in names:
            try:
                async for rows in _purge_coupon(maintenance, name, report, after_days, actor, chunk):
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
    maintenance: Maintenance, name: str, report: PurgeReport, after_days: int, actor: str, chunk: int
) -> AsyncGenerator[int, None]:
    """Purge a coupon until it is gone, or until nothing may be removed: its end may have been postponed meanwhile."""
    while True:
        purged = await maintenance.purge_coupon(name, for_days=after_days, limit=chunk, actor=actor)
        if not purged.rows:
            return
        report.add(purged)
        yield purged.rows
        if purged.coupons:
            return


async def _forget(counters: Counters, name: str) -> None:
    """Delete the coupon's counter, so that a later coupon with the same name does not inherit it."""
    count = await counters.count(name)
    if count is not None:
        await counters.forget(name, count)


async def purgeable(maintenance: Maintenance, *, after_days: int) -> PurgeReport:
    """Count what a pass would remove now.

    Args:
        after_days: see `purge`.
    """
    report = await maintenance.count_purgeable()
    after = ""
    while after_days and (names := await maintenance.ended_coupons(after=after, limit=_PAGE, for_days=after_days)):
        for name in names:
            report.add(await maintenance.count_coupon(name))
        after = names[-1]
    return report
