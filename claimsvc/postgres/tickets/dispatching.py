"""Starting the tickets of queues that are due, at the pace that all instances share.

One transaction looks after several queues, in three round trips: it locks their rows, reads them by a snapshot that is
newer than the locks, and writes. A queue that another instance has locked is left to it. The pace is computed by
`domain.pacing`, on the database's clock.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Any
from uuid import uuid4

from psycopg.rows import dict_row

from claimsvc.domain import MOST_TRIES, USUAL_QUEUE, Queue, QueueOrder, StartedTicket, TicketLease
from claimsvc.domain.pacing import Pace
from claimsvc.ports import Dispatched, FailedTry
from claimsvc.postgres.connections import Driver
from claimsvc.postgres.coupon_rows import queue_of
from claimsvc.postgres.database import Database
from claimsvc.postgres.tickets.drawing import draw
from claimsvc.postgres.tickets.options import options_of
from claimsvc.postgres.tickets.reading import BLOCK

# In one transaction, so that the locks are held for some milliseconds.
_MOST_QUEUES = 64
_MOST_OF_A_QUEUE = 256
_EVER, _NEVER = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
# When a ticket is looked at again that somebody else has locked although its lease has ended.
_LOOK_AGAIN = timedelta(milliseconds=100)
_CLOCK_TOLERANCE = timedelta(milliseconds=200)

_DUE = """
SELECT coupon_name FROM queues
WHERE due_at <= clock_timestamp() OR coupon_name = ANY (%(freed)s)
ORDER BY due_at LIMIT %(most)s
FOR UPDATE SKIP LOCKED
"""
_EXISTING = "SELECT coupon_name FROM queues WHERE coupon_name = ANY (%(freed)s)"
_ALL_DUE = "SELECT coupon_name FROM queues WHERE due_at IS NOT NULL"
_DUE_AT = "SELECT clock_timestamp(), min(due_at) FROM queues WHERE due_at IS NOT NULL"

_QUEUES = """
SELECT queue.coupon_name, clock_timestamp() AS now, queue.waiting, queue.head, queue.starts, queue.pace,
    queue.paced_at, queue.paced_starts, queue.stopped_until, queue.due_at, campaign.queue, campaign.starts_at,
    queue.seed IS NOT NULL AND queue.drawn_at IS NULL AS is_to_draw,
    coalesce(coupon.remaining_amount = 0 AND campaign.waiting_list_seconds IS NOT NULL AND campaign.archived_at IS NULL
        AND coalesce(campaign.ends_at > clock_timestamp(), true), false) AS is_sold_out, campaign.ends_at,
    queue.paused OR coalesce(campaign.paused, false) AS is_paused,
    (
        SELECT count(*) FROM tickets
        WHERE coupon_name = queue.coupon_name AND state = 'started' AND leased_until > clock_timestamp()
    ) AS under_way,
    (
        SELECT min(coalesce(next_try_at, leased_until)) FROM tickets
        WHERE coupon_name = queue.coupon_name AND state = 'started'
            AND coalesce(next_try_at, leased_until) > clock_timestamp()
    ) AS next_try_at,
    (
        SELECT count(*) FROM tickets
        WHERE coupon_name = queue.coupon_name AND state = 'started'
            AND coalesce(next_try_at, leased_until) <= clock_timestamp()
    ) AS lapsed
FROM queues AS queue
JOIN coupons AS coupon ON coupon.name = queue.coupon_name
LEFT JOIN campaigns AS campaign ON campaign.coupon_name = queue.coupon_name
WHERE queue.coupon_name = ANY (%(names)s)
ORDER BY queue.due_at
"""

# Whose lease has ended, or whose claim is to be tried again now. One whose claim ends just now is skipped.
_AGAIN = """
SELECT coupon_name, place, id::text, user_id, options, joined_at, tries FROM tickets
WHERE coupon_name = ANY (%(names)s) AND state = 'started' AND coalesce(next_try_at, leased_until) <= clock_timestamp()
ORDER BY place LIMIT %(most)s
FOR UPDATE SKIP LOCKED
"""

_NEXT = """
SELECT ticket.*
FROM queues AS queue
LEFT JOIN campaigns AS campaign ON campaign.coupon_name = queue.coupon_name
CROSS JOIN LATERAL (
    SELECT coupon_name, place, id::text, user_id, options, joined_at, tries FROM tickets
    WHERE coupon_name = queue.coupon_name AND place >= queue.head AND state = 'waiting'
    ORDER BY place
    LIMIT least(%(most)s, 1 + coalesce(
        least((campaign.queue ->> 'rate_per_second')::int, (campaign.queue ->> 'concurrency')::int), %(usual)s
    ))
) AS ticket
WHERE queue.coupon_name = ANY (%(names)s)
ORDER BY ticket.coupon_name, ticket.place
"""

_START = """
UPDATE tickets SET state = 'started', lease = leased.lease, tries = tickets.tries + 1, next_try_at = NULL,
    started_at = coalesce(started_at, leased.at), leased_until = leased.at + make_interval(secs => %(lease_seconds)s)
FROM unnest(%(names)s::text[], %(places)s::bigint[], %(leases)s::uuid[], %(times)s::timestamptz[])
    AS leased (coupon_name, place, lease, at)
WHERE tickets.coupon_name = leased.coupon_name AND tickets.place = leased.place
"""
_END = """
UPDATE tickets SET state = ended.state, ended_at = clock_timestamp(), lease = NULL, leased_until = NULL,
    next_try_at = NULL
FROM unnest(%(names)s::text[], %(places)s::bigint[], %(states)s::text[]) AS ended (coupon_name, place, state)
WHERE tickets.coupon_name = ended.coupon_name AND tickets.place = ended.place
"""
_COUNT = """
WITH counted AS (
    UPDATE ticket_blocks AS block SET waiting = block.waiting - gone.tickets
    FROM unnest(%(names)s::text[], %(blocks)s::bigint[], %(counts)s::int[]) AS gone (coupon_name, block, tickets)
    WHERE block.coupon_name = gone.coupon_name AND block.block = gone.block
)
DELETE FROM ticket_blocks AS block
USING unnest(%(queues)s::text[], %(heads)s::bigint[]) AS queue (coupon_name, head)
WHERE block.coupon_name = queue.coupon_name AND block.block < queue.head
"""
_WRITE = """
UPDATE queues AS queue SET
    waiting = written.waiting, head = written.head, starts = written.starts::timestamptz[], pace = written.pace,
    paced_at = written.paced_at, paced_starts = written.paced_starts, due_at = written.due_at,
    dispatcher = CASE WHEN written.started THEN %(instance)s ELSE dispatcher END,
    dispatched_at = CASE WHEN written.started THEN clock_timestamp() ELSE dispatched_at END
FROM unnest(
    %(names)s::text[], %(waiting)s::int[], %(heads)s::bigint[], %(starts)s::text[], %(paces)s::float8[],
    %(paced_at)s::timestamptz[], %(paced_starts)s::int[], %(due_at)s::timestamptz[], %(started)s::bool[]
) AS written (coupon_name, waiting, head, starts, pace, paced_at, paced_starts, due_at, started)
WHERE queue.coupon_name = written.coupon_name
"""

# A ticket that is locked is ending just now: whoever waited for it could wait in a circle.
_HELD = """
    SELECT ticket.coupon_name, ticket.place, held.retry_seconds, held.counts
    FROM unnest(%(names)s::text[], %(places)s::bigint[], %(leases)s::uuid[], %(retry)s::float8[], %(counts)s::bool[])
        AS held (coupon_name, place, lease, retry_seconds, counts)
    JOIN tickets AS ticket
        ON ticket.coupon_name = held.coupon_name AND ticket.place = held.place AND ticket.lease = held.lease
    WHERE ticket.state = 'started'
    FOR NO KEY UPDATE OF ticket SKIP LOCKED
"""
_RENEW = f"""
WITH held AS MATERIALIZED ({_HELD})
UPDATE tickets SET leased_until = clock_timestamp() + make_interval(secs => %(lease_seconds)s)
FROM held
WHERE tickets.coupon_name = held.coupon_name AND tickets.place = held.place AND leased_until > clock_timestamp()
"""  # noqa: S608 - of constants

_PUT_BACK = f"""
WITH held AS MATERIALIZED ({_HELD}), given_up AS (
    UPDATE tickets SET lease = NULL, leased_until = NULL,
        state = CASE WHEN retry_seconds IS NULL THEN 'dead' ELSE 'started' END,
        ended_at = CASE WHEN retry_seconds IS NULL THEN clock_timestamp() END,
        next_try_at = clock_timestamp() + make_interval(secs => retry_seconds),
        tries = tries - CASE WHEN counts THEN 0 ELSE 1 END
    FROM held WHERE tickets.coupon_name = held.coupon_name AND tickets.place = held.place
)
UPDATE queues SET due_at = clock_timestamp(),
    stopped_until = CASE WHEN stop.seconds > 0 THEN clock_timestamp() + make_interval(secs => stop.seconds)
        ELSE stopped_until END
FROM (
    SELECT coupon_name, max(stop_seconds) AS seconds
    FROM unnest(%(names)s::text[], %(stop)s::float8[]) AS failed (coupon_name, stop_seconds)
    GROUP BY coupon_name
) AS stop
WHERE queues.coupon_name = stop.coupon_name
"""  # noqa: S608 - of constants
_LOCK_QUEUES = "SELECT FROM queues WHERE coupon_name = ANY (%(names)s) ORDER BY coupon_name FOR UPDATE"

# What was written by the clock before would come too late by as much as it was set back.
_BRING_NEAR = """
WITH near AS (
    UPDATE tickets SET next_try_at = CASE WHEN next_try_at IS NOT NULL THEN least(next_try_at, clock_timestamp()) END,
        leased_until = CASE WHEN leased_until IS NOT NULL THEN
            least(leased_until, clock_timestamp() + make_interval(secs => %(lease_seconds)s)) END
    WHERE state = 'started' AND coupon_name = ANY (%(names)s)
)
UPDATE queues SET due_at = clock_timestamp(),
    stopped_until = CASE WHEN stopped_until <= clock_timestamp() THEN stopped_until END
WHERE coupon_name = ANY (%(names)s)
"""


class TicketDispatching:
    """The part of `ports.Tickets` that starts tickets.

    Args:
        database: where statements run.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._clock = _Clock()
        self._to_draw: list[str] = []

    async def dispatch(self, instance: str, *, lease_seconds: float, freed: Collection[str] = ()) -> Dispatched:
        """See `ports.Tickets`."""
        await self._bring_near(lease_seconds)

        async def work(driver: Driver, in_doubt: bool) -> tuple[list[_Pass], set[str]]:
            async with driver.pipeline():
                await driver.execute("BEGIN", prepare=False)
                due = await driver.execute(_DUE, {"freed": list(freed), "most": _MOST_QUEUES})
                existing = await driver.execute(_EXISTING, {"freed": list(freed)}) if freed else None
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

    async def _passes(self, driver: Driver, names: Sequence[str], lease_seconds: float) -> list["_Pass"]:
        which = {"names": list(names), "most": _MOST_OF_A_QUEUE, "usual": USUAL_QUEUE.concurrency}
        async with driver.pipeline():
            queues = await driver.cursor(row_factory=dict_row).execute(_QUEUES, which)
            again = await driver.cursor(row_factory=dict_row).execute(_AGAIN, which)
            waiting = await driver.cursor(row_factory=dict_row).execute(_NEXT, which)
        rows = await queues.fetchall()
        advanced = self._clock.advanced(rows[0]["now"]) if rows else timedelta(0)
        again_of, waiting_of = _by_coupon(await again.fetchall()), _by_coupon(await waiting.fetchall())
        passes = [_Pass(row, again_of[row["coupon_name"]], waiting_of[row["coupon_name"]]) for row in rows]
        for each in passes:
            each.plan(advanced, timedelta(seconds=lease_seconds))
        return passes

    async def due_in(self) -> float | None:
        """See `ports.Tickets`."""
        [(now, due_at)] = await self._database.fetch(_DUE_AT)
        self._clock.advanced(now)
        if due_at is None:
            return None
        return 0.0 if self._clock.was_set_back else (due_at - now).total_seconds()

    async def _bring_near(self, lease_seconds: float) -> None:
        """Correct the times of queues and leases that lie ahead, if the database's clock was set back."""
        if not self._clock.was_set_back:
            return
        names = [name for (name,) in await self._database.fetch(_ALL_DUE)]
        await self._write_once(_BRING_NEAR, {"names": names, "lease_seconds": lease_seconds})
        self._clock.was_set_back = False

    async def renew(self, tickets: Sequence[StartedTicket], *, lease_seconds: float) -> None:
        """See `ports.Tickets`."""
        await self._write_once(
            _RENEW, {**_places(tickets, [None] * len(tickets), [True] * len(tickets)), "lease_seconds": lease_seconds}
        )

    async def put_back(self, failed: Sequence[FailedTry]) -> None:
        """See `ports.Tickets`."""
        parameters = _places(
            [each.ticket for each in failed],
            [each.retry_seconds for each in failed],
            [each.counts for each in failed],
        )
        parameters["stop"] = [each.stop_seconds for each in failed]
        await self._write_once(_PUT_BACK, parameters)

    async def _write_once(self, statement: str, parameters: Mapping[str, Any]) -> None:
        """Run a statement that does nothing if it is repeated, after the queues were locked."""

        async def work(driver: Driver, in_doubt: bool) -> None:
            async with driver.pipeline():
                await driver.execute("BEGIN", prepare=False)
                await driver.execute(_LOCK_QUEUES, {"names": sorted(set(parameters["names"]))})
                await driver.execute(statement.encode(), parameters)
                await driver.execute("COMMIT", prepare=False)

        await self._database.run_transaction(work)


class _Clock:
    """Notices that the database's clock was set: forward, if it went faster than this process's; or back."""

    def __init__(self) -> None:
        # Stays true until it has been seen to.
        self.was_set_back = False
        self._read: tuple[datetime, float] | None = None
        self._advanced = timedelta(0)
        self._noticed_at = 0.0

    def advanced(self, now: datetime) -> timedelta:
        """Return by how much it was set forward within the last second; `now` is its time."""
        here = time.monotonic()
        if self._read is not None:
            advanced = now - self._read[0] - timedelta(seconds=here - self._read[1])
            # A late answer makes it seem slow, but never lets it go back.
            self.was_set_back = self.was_set_back or now < self._read[0]
            if advanced > _CLOCK_TOLERANCE:
                # It is known as exactly as answers take the same time: too much only delays some starts.
                self._advanced, self._noticed_at = advanced + _CLOCK_TOLERANCE, here
        self._read = now, here
        return self._advanced if here < self._noticed_at + 1 else timedelta(0)


@dataclass(slots=True)
class _Pass:
    """What a pass does to one queue."""

    row: Mapping[str, Any]
    again: list[dict[str, Any]]
    waiting: list[dict[str, Any]]
    started: list[tuple[Mapping[str, Any], TicketLease]] = field(default_factory=list)
    expired: list[dict[str, Any]] = field(default_factory=list)
    dead: list[dict[str, Any]] = field(default_factory=list)
    pace: Pace = field(default_factory=Pace)
    due_at: datetime | None = None
    head: int = 0
    waiting_count: int = 0
    # Whether the order is to be drawn before anybody is started.
    is_to_draw: bool = False

    @property
    def name(self) -> str:
        return str(self.row["coupon_name"])

    @property
    def now(self) -> datetime:
        now: datetime = self.row["now"]
        return now

    @property
    def lag_seconds(self) -> float:
        """By how much it is late."""
        due_at: datetime | None = self.row["due_at"]
        return 0.0 if due_at is None else max(0.0, (self.now - due_at).total_seconds())

    @property
    def locked(self) -> int:
        """How many are locked although their leases have ended: by claims that end now, or are rolled back."""
        return max(0, int(self.row["lapsed"]) - len(self.again))

    def plan(self, clock_advanced: timedelta, lease: timedelta) -> None:
        """Decide who is started, who is expired, and when the queue is due again."""
        row, now = self.row, self.now
        queue = queue_of(row["queue"]) or USUAL_QUEUE
        max_wait = timedelta(seconds=queue.max_wait_seconds)
        starts_at = row["starts_at"] or _EVER
        self.pace = Pace(row["starts"], row["pace"], row["paced_at"], row["paced_starts"]).at(
            now, clock_advanced=clock_advanced
        )
        # Who waits for units that come back waits until the coupon ends.
        may_expire = [] if row["is_sold_out"] else self.waiting
        self.expired = list(takewhile(lambda each: max(each["joined_at"], starts_at) + max_wait <= now, may_expire))
        left = self.waiting[len(self.expired) :]
        self.dead = [each for each in self.again if each["tries"] >= MOST_TRIES]
        again = [each for each in self.again if each["tries"] < MOST_TRIES]
        stopped_until = self._stopped_until()
        allowed = self.pace.allowed(queue.rate_per_second, queue.concurrency, row["under_way"] + self.locked)
        self.is_to_draw = stopped_until is None and queue.order is QueueOrder.DRAW and row["is_to_draw"]
        chosen = [] if stopped_until is not None or self.is_to_draw else [*again, *left][:allowed]
        self.started = [(each, TicketLease(each["id"], each["place"], str(uuid4()))) for each in chosen]
        if chosen:
            self.pace = self.pace.started(len(chosen), now)
        newly_started = max(0, len(chosen) - len(again))
        gone = self.waiting[: len(self.expired) + newly_started]
        left = left[newly_started:]
        self.waiting_count = row["waiting"] - len(gone)
        self.head = left[0]["place"] if left else gone[-1]["place"] + 1 if gone else row["head"]
        self.due_at = self._due(queue, left, again[len(chosen) :], stopped_until, lease)

    def _stopped_until(self) -> datetime | None:
        """Until when nothing is started; None if that is not stopped."""
        if self.row["is_sold_out"] and not self.row["is_paused"]:
            return self.row["ends_at"] or _NEVER
        if self.row["is_paused"]:
            return _NEVER
        until = [self.row[name] for name in ("starts_at", "stopped_until") if self.row[name] is not None]
        return max((each for each in until if each > self.now), default=None)

    def _due(
        self,
        queue: Queue,
        left: Sequence[Mapping[str, Any]],
        again: Sequence[Mapping[str, Any]],
        stopped_until: datetime | None,
        lease: timedelta,
    ) -> datetime | None:
        """Return when the next ticket may be started or expires, or a lease ends; None if none of these is to come."""
        next_try_at: datetime | None = self.row["next_try_at"]
        has_more = bool(again or self.waiting_count)
        times: list[datetime] = []
        if stopped_until is not None:
            if (has_more or self.locked or next_try_at is not None) and stopped_until is not _NEVER:
                times.append(stopped_until)
        else:
            if next_try_at is not None:
                times.append(next_try_at)
            if self.started:
                times.append(self.now + lease)
            if self.locked:
                times.append(self.now + _LOOK_AGAIN)
            if has_more and self.row["under_way"] + self.locked + len(self.started) < queue.concurrency:
                times.append(self.pace.free_at(queue.rate_per_second, self.now) or self.now)
        if self.row["is_sold_out"]:
            return min(times, default=None)
        if left:
            joined_at = max(left[0]["joined_at"], self.row["starts_at"] or _EVER)
            times.append(joined_at + timedelta(seconds=queue.max_wait_seconds))
        elif self.waiting_count:
            times.append(self.now)  # all that were read are gone
        return min(times, default=None)

    @property
    def gone(self) -> list[dict[str, Any]]:
        """Those that do not wait any more."""
        return self.waiting[: self.row["waiting"] - self.waiting_count]


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


async def _write(driver: Driver, passes: Sequence[_Pass], instance: str, lease_seconds: float) -> None:
    ended = [(each.name, row["place"], "expired") for each in passes for row in each.expired]
    ended += [(each.name, row["place"], "dead") for each in passes for row in each.dead]
    if ended:
        names, places, states = zip(*ended, strict=True)
        await driver.execute(_END, {"names": list(names), "places": list(places), "states": list(states)})
    leased = [(each.name, lease.place, lease.token, each.now) for each in passes for _, lease in each.started]
    if leased:
        names, places, leases, times = zip(*leased, strict=True)
        await driver.execute(
            _START,
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
            _COUNT,
            {
                "names": [name for name, _ in gone],
                "blocks": [block for _, block in gone],
                "counts": list(gone.values()),
                "queues": [each.name for each in passes],
                "heads": [each.head // BLOCK for each in passes],
            },
        )
    if passes:
        await driver.execute(_WRITE, _written(passes, instance))


def _written(passes: Sequence[_Pass], instance: str) -> dict[str, Any]:
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
