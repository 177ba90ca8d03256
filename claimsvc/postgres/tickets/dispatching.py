"""Starting the tickets of queues that are due, at the pace that all instances share.

One transaction looks after several queues, in three round trips: it locks their rows, reads them by a snapshot that is
newer than the locks, and writes. A queue that another instance has locked is left to it. The pace is computed by
`domain.pacing`, on the database's clock.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from psycopg.rows import dict_row

from claimsvc.domain import USUAL_QUEUE, StartedTicket, TicketLease
from claimsvc.ports import Dispatched, FailedTry
from claimsvc.postgres.connections import Driver
from claimsvc.postgres.database import Database
from claimsvc.postgres.tickets.database_clock import DatabaseClock
from claimsvc.postgres.tickets.dispatch_passes import QueuePass
from claimsvc.postgres.tickets.dispatch_statements import (
    AGAIN,
    ALL_DUE,
    BRING_NEAR,
    COUNT,
    DUE,
    DUE_AT,
    END,
    EXISTING,
    LOCK_QUEUES,
    NEXT,
    PUT_BACK,
    QUEUES,
    RENEW,
    START,
    WRITE,
)
from claimsvc.postgres.tickets.drawing import draw
from claimsvc.postgres.tickets.options import options_of
from claimsvc.postgres.tickets.reading import BLOCK

# In one transaction, so that the locks are held for some milliseconds.
_MOST_QUEUES = 64
_MOST_OF_A_QUEUE = 256


class TicketDispatching:
    """The part of `ports.Tickets` that starts tickets.

    Args:
        database: where statements run.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._clock = DatabaseClock()
        self._to_draw: list[str] = []

    async def dispatch(self, instance: str, *, lease_seconds: float, freed: Collection[str] = ()) -> Dispatched:
        """See `ports.Tickets`."""
        await self._bring_near(lease_seconds)

        async def work(driver: Driver, in_doubt: bool) -> tuple[list[QueuePass], set[str]]:
            async with driver.pipeline():
                await driver.execute("BEGIN", prepare=False)
                due = await driver.execute(DUE, {"freed": list(freed), "most": _MOST_QUEUES})
                existing = await driver.execute(EXISTING, {"freed": list(freed)}) if freed else None
            names = [name for (name,) in await due.fetchall()]
            skipped = {name for (name,) in await existing.fetchall()} - set(names) if existing is not None else set()
            passes = await self._passes(driver, names, lease_seconds) if names else []
            async with driver.pipeline():
                await _write(driver, passes, instance, lease_seconds)
                await driver.execute("COMMIT", prepare=False)
            return passes, skipped

        await self._draw()
        # Leases of a commit in doubt end by themselves: nobody knows which these are.
        passes, skipped = await self._database.run_transaction(work)
        self._to_draw = [each.name for each in passes if each.is_to_draw]
        # Leases that are given do not wait for that.
        if not any(each.started for each in passes):
            await self._draw()
        return Dispatched(
            [_started(row, lease, each.now) for each in passes for row, lease in each.started],
            {each.name: (each.due_at - each.now).total_seconds() for each in passes if each.due_at is not None},
            {each.name: len(each.expired) for each in passes if each.expired},
            max((each.lag_seconds for each in passes if each.started), default=0.0),
            dead={each.name: len(each.dead) for each in passes if each.dead},
            looked_at=len(passes),
            skipped=skipped,
        )

    async def _draw(self) -> None:
        """Draw the orders that are to be drawn. They stay due until they are."""
        while self._to_draw:
            await draw(self._database, self._to_draw.pop())

    async def _passes(self, driver: Driver, names: Sequence[str], lease_seconds: float) -> list["QueuePass"]:
        which = {"names": list(names), "most": _MOST_OF_A_QUEUE, "usual": USUAL_QUEUE.concurrency}
        async with driver.pipeline():
            queues = await driver.cursor(row_factory=dict_row).execute(QUEUES, which)
            again = await driver.cursor(row_factory=dict_row).execute(AGAIN, which)
            waiting = await driver.cursor(row_factory=dict_row).execute(NEXT, which)
        rows = await queues.fetchall()
        advanced = self._clock.advanced(rows[0]["now"]) if rows else timedelta(0)
        again_of, waiting_of = _by_coupon(await again.fetchall()), _by_coupon(await waiting.fetchall())
        passes = [QueuePass(row, again_of[row["coupon_name"]], waiting_of[row["coupon_name"]]) for row in rows]
        for each in passes:
            each.plan(advanced, timedelta(seconds=lease_seconds))
        return passes

    async def due_in(self) -> float | None:
        """See `ports.Tickets`."""
        [(now, due_at)] = await self._database.fetch(DUE_AT)
        self._clock.advanced(now)
        if due_at is None:
            return None
        return 0.0 if self._clock.was_set_back else (due_at - now).total_seconds()

    async def _bring_near(self, lease_seconds: float) -> None:
        """Correct the times of queues and leases that lie ahead, if the database's clock was set back."""
        if not self._clock.was_set_back:
            return
        names = [name for (name,) in await self._database.fetch(ALL_DUE)]
        await self._write_once(BRING_NEAR, {"names": names, "lease_seconds": lease_seconds})
        self._clock.was_set_back = False

    async def renew(self, tickets: Sequence[StartedTicket], *, lease_seconds: float) -> None:
        """See `ports.Tickets`."""
        await self._write_once(
            RENEW, {**_places(tickets, [None] * len(tickets), [True] * len(tickets)), "lease_seconds": lease_seconds}
        )

    async def put_back(self, failed: Sequence[FailedTry]) -> None:
        """See `ports.Tickets`."""
        parameters = _places(
            [each.ticket for each in failed],
            [each.retry_seconds for each in failed],
            [each.counts for each in failed],
        )
        parameters["stop"] = [each.stop_seconds for each in failed]
        await self._write_once(PUT_BACK, parameters)

    async def _write_once(self, statement: str, parameters: Mapping[str, Any]) -> None:
        """Run a statement that does nothing if it is repeated, after the queues were locked."""

        async def work(driver: Driver, in_doubt: bool) -> None:
            async with driver.pipeline():
                await driver.execute("BEGIN", prepare=False)
                await driver.execute(LOCK_QUEUES, {"names": sorted(set(parameters["names"]))})
                await driver.execute(statement.encode(), parameters)
                await driver.execute("COMMIT", prepare=False)

        await self._database.run_transaction(work)


def _by_coupon(rows: Sequence[dict[str, Any]]) -> defaultdict[str, list[dict[str, Any]]]:
    found: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        found[row["coupon_name"]].append(row)
    return found


def _started(row: Mapping[str, Any], lease: TicketLease, now: datetime) -> StartedTicket:
    return StartedTicket(
        lease,
        row["coupon_name"],
        row["user_id"],
        replace(options_of(row["options"]), ticket=lease),
        row["joined_at"],
        now,
        row["tries"] + 1,
    )


def _places(
    tickets: Sequence[StartedTicket], retry_seconds: Sequence[float | None], counts: Sequence[bool]
) -> dict[str, Any]:
    return {
        "names": [each.coupon_name for each in tickets],
        "places": [each.lease.place for each in tickets],
        "leases": [each.lease.token for each in tickets],
        "retry": retry_seconds,
        "counts": counts,
    }


async def _write(driver: Driver, passes: Sequence[QueuePass], instance: str, lease_seconds: float) -> None:
    ended = [(each.name, row["place"], "expired") for each in passes for row in each.expired]
    ended += [(each.name, row["place"], "dead") for each in passes for row in each.dead]
    if ended:
        names, places, states = zip(*ended, strict=True)
        await driver.execute(END, {"names": list(names), "places": list(places), "states": list(states)})
    leased = [(each.name, lease.place, lease.token, each.now) for each in passes for _, lease in each.started]
    if leased:
        names, places, leases, times = zip(*leased, strict=True)
        await driver.execute(
            START,
            {
                "names": list(names),
                "places": list(places),
                "leases": list(leases),
                "times": list(times),
                "lease_seconds": lease_seconds,
            },
        )
    gone = Counter((each.name, row["place"] // BLOCK) for each in passes for row in each.gone)
    if gone:
        await driver.execute(
            COUNT,
            {
                "names": [name for name, _ in gone],
                "blocks": [block for _, block in gone],
                "counts": list(gone.values()),
                "queues": [each.name for each in passes],
                "heads": [each.head // BLOCK for each in passes],
            },
        )
    if passes:
        await driver.execute(WRITE, _written(passes, instance))


def _written(passes: Sequence[QueuePass], instance: str) -> dict[str, Any]:
    return {
        "instance": instance,
        "names": [each.name for each in passes],
        "waiting": [each.waiting_count for each in passes],
        "heads": [each.head for each in passes],
        # An array of arrays would have to be of one length each.
        "starts": ["{" + ",".join(start.isoformat() for start in each.pace.starts) + "}" for each in passes],
        "paces": [each.pace.per_second for each in passes],
        "paced_at": [each.pace.since for each in passes],
        "paced_starts": [each.pace.counted for each in passes],
        "due_at": [each.due_at for each in passes],
        "started": [bool(each.started) for each in passes],
    }
