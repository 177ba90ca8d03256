"""What one pass does to a queue: who is started, who is expired, and when it is due again. It reads nothing itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Any
from uuid import uuid4

from claimsvc.domain import MOST_TRIES, USUAL_QUEUE, Queue, QueueOrder, TicketLease
from claimsvc.domain.pacing import Pace
from claimsvc.postgres.coupon_rows import queue_of

_EVER, _NEVER = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
# When a ticket is looked at again that somebody else has locked although its lease has ended.
_LOOK_AGAIN = timedelta(milliseconds=100)


@dataclass(slots=True)
class QueuePass:
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
