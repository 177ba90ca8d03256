"""What became of every ticket, written by a trigger in the transactions of the service: nothing can be missed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

# `uptime` is a clock that nobody sets, so that a jump of the server's clock can be told from time that has passed.
_LOG = """
CREATE TABLE ticket_log (
    n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, coupon_name text NOT NULL, ticket uuid NOT NULL, state text,
    lease uuid, leased_until timestamptz, ended_at timestamptz, at timestamptz NOT NULL, uptime float8
);
CREATE FUNCTION log_ticket() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        INSERT INTO ticket_log (coupon_name, ticket, at) VALUES (OLD.coupon_name, OLD.id, clock_timestamp());
    ELSIF TG_OP = 'INSERT' OR ROW (OLD.state, OLD.lease, OLD.leased_until, OLD.id, OLD.user_id)
            IS DISTINCT FROM ROW (NEW.state, NEW.lease, NEW.leased_until, NEW.id, NEW.user_id) THEN
        INSERT INTO ticket_log (coupon_name, ticket, state, lease, leased_until, ended_at, at, uptime)
        VALUES (NEW.coupon_name, NEW.id, NEW.state, NEW.lease, NEW.leased_until, NEW.ended_at, clock_timestamp(),
            split_part(pg_read_file('/proc/uptime'), ' ', 1)::float8);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER log_ticket AFTER INSERT OR UPDATE OR DELETE ON tickets FOR EACH ROW EXECUTE FUNCTION log_ticket();
"""

NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class TicketRow:
    """A ticket as it is in the end; `refusal` is why it was refused, if it was."""

    id: str
    coupon: str
    user: str
    state: str
    tries: int
    claim: str = ""
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """A change of a ticket that was committed. Those of a ticket are in order, and so are those of a queue's length.

    Args:
        state: its state from then on; empty if the ticket was deleted.
        lease, leased_until: the token of its lease, and when that ends.
        ended_at: when its end was written.
        at: when the change was written. All times are true ones, also if the server's clock was wrong.
    """

    coupon: str
    ticket: str
    state: str
    lease: str = ""
    leased_until: datetime | None = None
    ended_at: datetime | None = None
    at: datetime = NEVER


@dataclass(frozen=True, slots=True)
class QueueRow:
    """The limits of a queue."""

    rate_per_second: int
    concurrency: int
    max_length: int


@dataclass(frozen=True, slots=True)
class Tickets:
    """All tickets, all queues by their coupons, and all changes."""

    tickets: Sequence[TicketRow]
    queues: Mapping[str, QueueRow]
    changes: Sequence[Change]


def log_tickets(database_url: str) -> None:
    """Write every change of a ticket to a log from now on."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(_LOG.encode())


def left_of(database_url: str) -> int:
    """How many tickets wait or are started."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        row = connection.execute("SELECT count(*) FROM tickets WHERE ended_at IS NULL").fetchone()
        assert row is not None
        return int(row[0])


def read_tickets(database_url: str, clock_offsets: Sequence[float] = ()) -> Tickets:
    """Read all of it.

    Args:
        database_url: of a database whose tickets were logged.
        clock_offsets: by how many seconds the server's clock was wrong at one time or another.
    """
    with psycopg.connect(database_url) as connection:
        queues = connection.execute("SELECT coupon_name, queue FROM campaigns WHERE queue IS NOT NULL").fetchall()
        tickets = connection.execute(
            "SELECT id::text, coupon_name, user_id, state, tries, coalesce(claim_id::text, ''),"
            " coalesce(refusal ->> 'kind', '') FROM tickets"
        ).fetchall()
        changes = connection.execute(
            "SELECT coupon_name, ticket::text, coalesce(state, ''), coalesce(lease::text, ''), leased_until, ended_at,"
            " at, uptime FROM ticket_log ORDER BY n"
        ).fetchall()
        [(now, uptime)] = connection.execute(
            "SELECT clock_timestamp(), split_part(pg_read_file('/proc/uptime'), ' ', 1)::float8"
        ).fetchall()
    booted = now - timedelta(seconds=uptime)
    return Tickets(
        [TicketRow(*row) for row in tickets],
        {name: QueueRow(queue["rate_per_second"], queue["concurrency"], queue["max_length"]) for name, queue in queues},
        [_change(row, booted, clock_offsets) for row in changes],
    )


def _change(row: Sequence[Any], booted: datetime, offsets: Sequence[float]) -> Change:
    coupon, ticket, state, lease, leased_until, ended_at, at, uptime = row
    if not offsets or uptime is None:
        return Change(coupon, ticket, state, lease, leased_until, ended_at, at)
    truly = booted + timedelta(seconds=uptime)

    def corrected(time: datetime | None, near: datetime) -> datetime | None:
        """The true time of one that was written near that moment, whatever the clock showed."""
        if time is None:
            return None
        return min((time - timedelta(seconds=each) for each in (0.0, *offsets)), key=lambda each: abs(each - near))

    return Change(
        coupon,
        ticket,
        state,
        lease,
        corrected(leased_until, truly),
        corrected(ended_at, truly),
        corrected(at, truly) or at,
    )
