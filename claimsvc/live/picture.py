"""One picture of all instances: what the console shows, made of their summaries."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from claimsvc.live.events import Event
from claimsvc.live.summary import Summary
from claimsvc.metrics import LATENCY_BOUNDS, Numbers

MOST_COUPONS = 12
MOST_EVENTS = 40
OTHER = "other"

OUTCOMES = ("claimed", "already-claimed", "sold-out", "lock-busy", "unavailable", "internal-error")


@dataclass(frozen=True, slots=True)
class CouponRow:
    """One coupon now. Rates are a second; `None` is not known.

    Args:
        outcomes: claims answered, by outcome.
        wait_ms, hold_ms: means, of a lock that was waited for or held.
        waiting_share: of the time that leaders spent waiting for the lock or holding it, how much they waited.
        busy_share: attempts to take the lock that found it another's, of all.
        gave_up: claims that gave up waiting for the lock, in the last `RECENT_SECONDS`.
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
    gave_up: int
    turns: list[tuple[int, float]]
    holder: int | None
    held_seconds: float

    @property
    def rate(self) -> float:
        """Claims answered a second, whatever the answer."""
        return sum(self.outcomes.values())


@dataclass(frozen=True, slots=True)
class InstanceRow:
    """One instance (a process) now. `silent_seconds` is how long nothing was heard of it."""

    id: str
    name: str
    is_here: bool
    silent_seconds: float
    rate: float
    waiting: int
    lock_waiters: int
    pool_in_use: int
    pool_size: int
    transaction_ms: float


@dataclass(frozen=True, slots=True)
class MasterRow:
    """One master: for how many of the instances it is up, and how long a call takes."""

    name: str
    up_for: int
    down_for: int
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
    """Everything that the console shows, but for the verdict."""

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

    @property
    def is_busy(self) -> bool:
        """Whether claims are made."""
        return bool(self.outcomes or self.waiting or any(row.acquired or row.busy for row in self.coupons))


RECENT_SECONDS = 30.0

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
    "instance-silent": ("warning", "Instance {subject} is silent"),
    "instance-new": ("info", "Instance {subject} is here"),
    "stress-test": ("info", "The stress test {subject} was started from here"),
}


def describe(event: Event, instance: Summary) -> EventRow:
    """An event in words."""
    level, text = _TEXTS.get(event.kind, ("info", event.kind))
    shown = text.format(subject="others" if event.subject == OTHER else event.subject, count=event.count)
    if event.count == 1:
        shown = shown.replace("1 claims", "1 claim")
    return EventRow(event.at, level, shown, instance.name, f"{instance.id}-{event.number}")


def merge_events(summaries: Iterable[Summary]) -> list[tuple[Event, Summary]]:
    """The events of all, newest first. What several have seen (a coupon that is sold out) is one, the earliest."""
    found: dict[tuple[str, str], tuple[Event, Summary]] = {}
    for summary in summaries:
        for event in summary.events:
            shared = event.kind in {"sold-out", "instance-new", "instance-silent"}
            key = (event.kind, event.subject) if shared else (summary.id, str(event.number))
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
