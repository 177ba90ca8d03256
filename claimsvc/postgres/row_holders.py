"""Who holds the row of a coupon in PostgreSQL, so that claims of it wait: found by the row, not by its waiters."""

from collections.abc import Sequence

from claimsvc.domain import RowHolder
from claimsvc.postgres.database import Database

# A transaction of the service ends within milliseconds, and one that is held up waits: it is no holder.
HELD_SECONDS = 1.0
# Of a statement, as much as says what it is.
_MOST_OF_QUERY = 100

# A row that is being changed or locked has in `xmax` the transaction that does it, whose own lock names its session.
# Sessions of other users show their times and statements to members of pg_read_all_stats alone.
_HOLDERS = """
SELECT
    coupon.name AS coupon_name,
    session.pid,
    coalesce(session.application_name, '') AS application_name,
    coalesce(session.usename, '') AS user_name,
    CASE WHEN session.backend_type IS NULL THEN '' ELSE coalesce(host(session.client_addr), 'a local socket') END
        AS client,
    coalesce(session.state, '') AS state,
    regexp_replace(
        coalesce(left(nullif(session.query, '<insufficient privilege>'), %(most)s), ''), '\\s+', ' ', 'g'
    ) AS query,
    extract(epoch FROM clock_timestamp() - session.xact_start)::float8 AS seconds,
    (
        SELECT count(*) FROM pg_stat_activity AS other WHERE session.pid = ANY (pg_blocking_pids(other.pid))
    ) AS waiting
FROM pg_locks AS held
JOIN pg_stat_activity AS session ON session.pid = held.pid
JOIN coupons AS coupon ON coupon.xmax = held.transactionid
WHERE held.locktype = 'transactionid' AND held.granted AND held.mode = 'ExclusiveLock'
    AND coalesce(session.wait_event_type, '') <> 'Lock'
    AND coalesce(
        clock_timestamp() - session.xact_start >= %(held)s * interval '1 second',
        session.application_name IS DISTINCT FROM 'claimsvc'
    )
    AND (%(names)s::text[] IS NULL OR coupon.name = ANY (%(names)s::text[]))
ORDER BY session.xact_start, coupon.name
LIMIT %(limit)s
"""
_MOST = 20


class RowHolders:
    """Finds sessions that hold the rows of coupons.

    Args:
        database: where the statement runs: not on the connections of claims, which wait for such a row.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, coupon_names: Sequence[str] | None = None) -> list[RowHolder]:
        """Return the sessions that have held the row of a coupon for a second or more, the longest first; 20 at most.

        Args:
            coupon_names: of which coupons; None means all, which reads every coupon.

        Raises:
            UnavailableError: PostgreSQL does not answer.
        """
        wanted = {
            "names": None if coupon_names is None else list(coupon_names),
            "held": HELD_SECONDS,
            "most": _MOST_OF_QUERY,
            "limit": _MOST,
        }
        return [RowHolder(**row) for row in await self._database.fetch_dicts(_HOLDERS, wanted)]
