"""Telling the counters of codes which types of coupons to count again, whatever process has changed their codes.

An instance of the service counts by itself, after its commit. A command cannot: it may not know the masters, and ends.
Its transactions leave marks in `code_changes` instead, and an instance that finds one counts that type.
"""

from collections.abc import Callable, Collection, Sequence

from claimsvc.postgres.connections import Driver
from claimsvc.postgres.database import Database

CodesChanged = Callable[[Collection[str | None]], None]
"""Called with types of coupons after a change to their codes was committed."""

COUNTED_TYPES = "array_append(campaigns.code_types, campaigns.type)"
"""The types under which the codes of a row of `campaigns` are counted: those of their own, and that of the coupon."""

TYPES_OF = f"""
SELECT DISTINCT unnest({COUNTED_TYPES}) FROM campaigns WHERE coupon_name = ANY (%(coupon_names)s) AND has_codes
"""  # noqa: S608 - of constants
"""The types under which codes of these coupons are counted."""

_MARK = f"INSERT INTO code_changes (coupon_type) {TYPES_OF}"
# Each mark is found by one instance. LIMIT bounds the statement; the next pass finds the others.
_TAKE = """
DELETE FROM code_changes WHERE ctid = ANY (ARRAY(SELECT ctid FROM code_changes LIMIT 1000 FOR UPDATE SKIP LOCKED))
RETURNING coupon_type
"""


class CodeChanges:
    """Tells of changes to codes.

    Args:
        changed: counts in this process; None if it does not, so that marks are left.
    """

    def __init__(self, changed: CodesChanged | None = None) -> None:
        self._changed = changed

    async def mark(self, driver: Driver, coupon_names: Sequence[str]) -> None:
        """Leave a mark in the transaction that changes codes of these coupons, if this process does not count."""
        if self._changed is None:
            await driver.execute(_MARK.encode(), {"coupon_names": list(coupon_names)})

    def committed(self, types: Collection[str | None]) -> None:
        """Count these types, if this process counts. Call it after the commit."""
        if self._changed is not None and types:
            self._changed(types)


async def take_marks(database: Database) -> set[str | None]:
    """Remove marks, and return the types to count. If the process ends before it has counted, the reconciler does."""
    return {row["coupon_type"] for row in await database.write_once(_TAKE, {})}
