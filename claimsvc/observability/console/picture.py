"""One picture of all instances: what the console shows, made of their summaries."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from claimsvc.observability.console.events import Event
from claimsvc.observability.console.membership import Heard
from claimsvc.observability.console.summary import Summary
from claimsvc.observability.metrics import LATENCY_BOUNDS, Numbers
from claimsvc.observability.metrics.busiest import OTHER

MOST_COUPONS = 12
MOST_EVENTS = 40
OUTCOMES = ("claimed", "already-claimed", "sold-out", "not-open", "lock-busy", "unavailable", "internal-error")


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn at a lock is made of, in milliseconds.

    Args:
        redis: taking the lock and giving it back: two calls.
        transactions: of those decided under it, the wait for a connection included.
        rest: of the time it is held: this service itself, which gathers claims, waits for CPU, or asks Redis.
    """

    redis: float
    transactions: float
    rest: float


@dataclass(frozen=True, slots=True)
class CouponRow:
    """One coupon now. Rates are a second; `None` is not known.

    Args:
        outcomes: claims answered, by outcome.
        wait_ms, hold_ms: means, of a lock that was waited for or held.
        waiting_share: of the time that leaders spent waiting for the lock or holding it, how much they waited.
        busy_share: attempts to take the lock that found it another's, of all.
        held_share: of the time, how much the instances that we hear held the lock.
        turn: None where the figures cannot tell, because more than this coupon is decided.
        lock: what is to be said of the lock: see `locks.lock_state`.
        gave_up: claims that gave up waiting for the lock, in the last `RECENT_SECONDS`.
        gave_up_age_seconds: how long ago the last of them did.
        turns: how much of the time each instance held the lock, by its number in `Picture.instances`.
        holder: the number of the instance that holds it now.
        held_seconds: for how long, at least.
    """

    name: str
    amount: int | None
    remaining: int | None
    strategy: str
    outcomes: Numbers
    acquired: float
    busy: float
    retries: float
    lost: float
    wait_ms: float
    hold_ms: float
    waiting_share: float
    busy_share: float
    held_share: float
    turn: Turn | None
    lock: str
    gave_up: int
    gave_up_age_seconds: int | None
    turns: list[tuple[int, float]]
    holder: int | None
    held_seconds: float

    @property
    def rate(self) -> float:
        """Claims answered a second, whatever the answer."""
        return sum(self.outcomes.values())


@dataclass(frozen=True, slots=True)
class InstanceRow:
    """One instance (a process) now.

    Args:
        started_at: when it began (seconds since 1970, by our clock).
        restarts: see `attendance.Heard`.
        silent_seconds: how long nothing was heard of it.
        masters_down: the masters that it does not reach.
        has_quorum: whether it reaches a majority of its masters.
    """

    id: str
    name: str
    is_here: bool
    started_at: float
    restarts: int
    silent_seconds: float
    masters_down: list[str]
    has_quorum: bool
    rate: float
    waiting: int
    lock_waiters: int
    pool_in_use: int
    pool_size: int
    transaction_ms: float


@dataclass(frozen=True, slots=True)
class MasterRow:
    """One master.

    Args:
        up_at, down_at: the numbers, in `Picture.instances`, of those that reach it, and of those that do not.
        call_ms: what a call takes those that reach it. The others make none: they only ask whether it is back.
    """

    name: str
    up_at: list[int]
    down_at: list[int]
    call_ms: float


@dataclass(frozen=True, slots=True)
class EventRow:
    """An event in words. `level` is `good`, `info`, `warning` or `bad`."""

    at: float
    level: str
    text: str
    instance: str
    key: str


@dataclass(frozen=True, slots=True)
class Times:
    """Where the time of those who lead batches goes: shares that add up to 1, or are all 0."""

    lock: float
    redis: float
    postgresql: float


@dataclass(slots=True)
class StressTest:
    """The stress test that was started from the console last. `state` is `running`, `passed`, `failed` or `ended`."""

    scenario: str
    state: str
    started_at: float
    seconds: float = 0.0
    claims_per_second: float = 0.0
    outcomes: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Picture:
    """Everything that the console shows, but for the verdict.

    Args:
        stock_age_seconds: how old the coupons' stock is, all read in one moment; 0 while it is what it should be.
    """

    coupons: list[CouponRow]
    instances: list[InstanceRow]
    masters: list[MasterRow]
    events: list[EventRow]
    outcomes: Numbers
    p50_ms: float | None
    p99_ms: float | None
    waiting: int
    gave_up: int
    times: Times
    transaction_ms: float
    hears_others: bool
    stock_age_seconds: int

    @property
    def is_busy(self) -> bool:
        """Whether claims are made."""
        return bool(self.outcomes or self.waiting or any(row.acquired or row.busy for row in self.coupons))


RECENT_SECONDS = 30.0
_SAME_SECONDS = 10.0

_TEXTS: Mapping[str, tuple[str, str]] = {
    "gave-up": ("bad", "{count:,} claims on {subject} gave up waiting for its lock"),
    "failed": ("bad", "{count:,} claims on {subject} failed: something that they need does not answer"),
    "broken": ("bad", "{count:,} claims on {subject} met an internal error; see the log"),
    "lock-lost": ("warning", "The lock of {subject} was lost while it was held; PostgreSQL kept the claims right"),
    "sold-out": ("info", "{subject} is sold out"),
    "coupon-created": ("good", "{subject} was created with {count:,} units"),
    "master-down": ("bad", "Master {subject} is down"),
    "master-up": ("good", "Master {subject} is up again"),
    "invariant": ("bad", "A transaction was rolled back because a promise would have been broken: see the log, now"),
    "instance-new": ("info", "Instance {subject} has begun"),
    "instance-left": ("info", "Instance {subject} has stopped"),
    "instance-silent": ("warning", "Instance {subject} is silent"),
    "instance-back": ("good", "Instance {subject} is heard again"),
    "stress-test": ("info", "The stress test {subject} was started from here"),
}


def describe(event: Event, instance: Summary) -> EventRow:
    """An event in words."""
    level, text = _TEXTS[event.kind]
    shown = text.format(subject="others" if event.subject == OTHER else event.subject, count=event.count)
    if event.count == 1:
        shown = shown.replace("1 claims", "1 claim")
    return EventRow(event.at, level, shown, instance.name, f"{instance.id}-{event.number}")


def merge_events(heard: Iterable[Heard]) -> list[tuple[Event, Summary]]:
    """The events of all by our clock, newest first. What several have seen (a coupon is sold out) is one, the earliest.

    Of kinds that a newer version may know, nothing is said.
    """
    found: dict[tuple[str, str], tuple[Event, Summary]] = {}
    for each in heard:
        summary = each.summary
        for told in summary.events:
            if told.kind not in _TEXTS:
                continue
            offset = each.clock_offset_seconds
            event = replace(told, at=told.at + offset) if offset else told
            if event.kind == "sold-out":
                key = event.kind, event.subject
            elif event.kind.startswith("instance-"):  # several see it, some sooner than others
                key = f"{event.kind} {event.at // _SAME_SECONDS:.0f}", event.subject
            else:
                key = summary.id, str(event.number)
            if key not in found or event.at < found[key][0].at:
                found[key] = event, summary
    return sorted(found.values(), key=lambda pair: pair[0].at, reverse=True)[:MOST_EVENTS]


def quantile_ms(counts: Sequence[float], share: float) -> float | None:
    """About the quantile, by straight lines between the bounds; None if nothing was counted."""
    total = sum(counts)
    if not total:
        return None
    wanted, below, seen = share * total, 0.0, 0.0
    for bound, count in zip(LATENCY_BOUNDS, counts, strict=True):
        if count and seen + count >= wanted:
            if bound == float("inf"):
                break
            return 1000 * (below + (bound - below) * (wanted - seen) / count)
        seen += count
        below = bound if bound != float("inf") else below
    return 1000 * below
