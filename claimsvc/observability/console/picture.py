"""The picture of all instances that the console shows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from claimsvc.observability.console.events import Event
from claimsvc.observability.console.health import DependencyState
from claimsvc.observability.console.membership import Heard
from claimsvc.observability.console.objectives import ObjectiveFigures
from claimsvc.observability.console.summary import Summary
from claimsvc.observability.metrics import LATENCY_BOUNDS, Numbers
from claimsvc.observability.metrics.busiest import OTHER

MOST_COUPONS = 12
MOST_EVENTS = 40
OUTCOMES = (
    "claimed",
    "queued",
    "already-claimed",
    "sold-out",
    "not-open",
    "queue-full",
    "lock-busy",
    "unavailable",
    "internal-error",
)


@dataclass(frozen=True, slots=True)
class Turn:
    """The parts of an average turn at a lock (milliseconds).

    Args:
        redis: taking and releasing the lock, two calls.
        transactions: under the lock, including the wait for a connection.
        rest: the remaining time of the hold, spent in this service: gathering claims, waiting for CPU, calling Redis.
    """

    redis: float
    transactions: float
    rest: float


@dataclass(frozen=True, slots=True)
class CouponRow:
    """One coupon. Rates are per second, of the last second; means and shares are of the last ten. None means unknown.

    Args:
        outcomes: rate of answered claims, by outcome.
        acquired, busy: rate of attempts that took the lock, and of those that found it taken.
        wait_ms, hold_ms: mean wait for the lock, and mean hold.
        waiting_share: share of waiting in the time that leaders spent waiting for the lock or holding it.
        busy_share: share of attempts that found the lock taken.
        held_share: share of the time in which known instances held the lock.
        turn: None if the figures do not suffice, because other coupons are claimed too.
        lock: the state of the lock; see `locks.lock_state`.
        gave_up: claims that gave up waiting for the lock in the last `RECENT_SECONDS`.
        gave_up_age_seconds: how long ago the last of them gave up.
        turns: share of the time in which each instance held the lock, by its index in `Picture.instances`.
        holder: index of the instance that holds the lock.
        held_seconds: how long the lock has been held, at least.
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
        """Answered claims per second, of all outcomes."""
        return sum(self.outcomes.values())


@dataclass(frozen=True, slots=True)
class InstanceRow:
    """One instance (a process).

    Args:
        started_at: when it started (seconds since 1970, by this instance's clock).
        restarts: see `membership.Heard`.
        silent_seconds: time since its last summary, if it is silent; else 0.
        health: its dependencies as it finds them, by name; the times are by this instance's clock.
        masters_down: the masters that it does not reach.
        has_quorum: whether it reaches a majority of its masters.
    """

    id: str
    name: str
    is_here: bool
    started_at: float
    restarts: int
    silent_seconds: float
    health: dict[str, DependencyState]
    masters_down: list[str]
    has_quorum: bool
    rate: float
    waiting: int
    lock_waiters: int
    pool_in_use: int
    pool_size: int
    transaction_ms: float

    @property
    def is_ready(self) -> bool:
        """Whether it can use its dependencies, as far as it is known."""
        return self.has_quorum and all(state.is_up for state in self.health.values())


@dataclass(frozen=True, slots=True)
class MasterRow:
    """One master.

    Args:
        up_at, down_at: indices in `Picture.instances` of the instances that reach it, and of those that do not.
        call_ms: mean duration of a call by the instances that reach it, in the last ten seconds.
    """

    name: str
    up_at: list[int]
    down_at: list[int]
    call_ms: float


@dataclass(frozen=True, slots=True)
class EventRow:
    """An event as text. `level` is `good`, `info`, `warning` or `bad`."""

    at: float
    level: str
    text: str
    instance: str
    key: str


POSTGRESQL, REDIS, LOCK, SERVICE = "postgresql", "redis", "lock", "service"


@dataclass(frozen=True, slots=True)
class Times:
    """Whose time it was that leaders of batches spent in the last ten seconds: shares that add up to 1, or are all 0.

    Waiting for another instance's turn is the time of what the turns consist of, and the lock's only if they are short.

    Args:
        lock: waiting for short turns: their number makes it long.
        redis: acquiring and releasing locks.
        postgresql: in transactions, those that go on included.
        service: in the instances themselves: late event loops, gathering claims.
        blame: whose time was most of it, by the name of its share; empty if nobody's.
    """

    lock: float
    redis: float
    postgresql: float
    service: float
    blame: str = ""


@dataclass(slots=True)
class StressTest:
    """The last stress test started from the console. `state` is `running`, `passed`, `failed` or `ended`."""

    scenario: str
    state: str
    started_at: float
    seconds: float = 0.0
    claims_per_second: float = 0.0
    outcomes: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Picture:
    """Everything that the console shows, except for the verdict.

    Args:
        coupons: the busiest first.
        instances: in the order of their starts, so that their letters are the same for every viewer.
        p50_ms, p99_ms: of the last second.
        recent_outcomes: like `outcomes`, of the last ten seconds.
        decided, slow: claims decided in the last ten seconds, and those of them that took longer than the objective.
        answered: requests for claims answered in the last ten seconds.
        failed: those of them that were answered with a 5xx.
        transaction_ms: mean duration of a transaction of the last ten seconds.
        lag_ms: how late the event loops of the instances that had claims woke on average in the last ten seconds.
        objectives: of all instances that are heard.
        hears_others: whether summaries of other instances can be received.
        stock_age_seconds: age of the coupons' stock if it is outdated; else 0.
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
    recent_outcomes: Numbers
    decided: int
    slow: int
    answered: int
    failed: int
    times: Times
    transaction_ms: float
    lag_ms: float
    objectives: ObjectiveFigures
    hears_others: bool
    stock_age_seconds: int

    @property
    def is_busy(self) -> bool:
        """Whether there are claims."""
        return bool(self.outcomes or self.waiting or any(row.acquired or row.busy for row in self.coupons))

    @property
    def speaking(self) -> list[int]:
        """The indices of the instances that are not silent."""
        return [place for place, row in enumerate(self.instances) if not row.silent_seconds]

    @property
    def slow_share(self) -> float:
        """Share of the claims decided in the last ten seconds that took longer than the objective."""
        return self.slow / self.decided if self.decided else 0.0


RECENT_SECONDS = 30.0
_SAME_SECONDS = 10.0

_TEXTS: Mapping[str, tuple[str, str]] = {
    "gave-up": ("bad", "{count:,} claims on {subject} gave up waiting for its lock"),
    "failed": ("bad", "{count:,} claims on {subject} failed: a dependency does not answer"),
    "broken": ("bad", "{count:,} claims on {subject} failed with an internal error; see the log"),
    "lock-lost": ("warning", "The lock of {subject} was lost while held; PostgreSQL kept the claims correct"),
    "sold-out": ("info", "{subject} is sold out"),
    "coupon-created": ("good", "{subject} was created with {count:,} units"),
    "master-down": ("bad", "Master {subject} is down"),
    "master-up": ("good", "Master {subject} is up again"),
    "invariant": ("bad", "A transaction was rolled back because it violated an invariant: check the log now"),
    "instance-new": ("info", "Instance {subject} has started"),
    "instance-left": ("info", "Instance {subject} has stopped"),
    "instance-silent": ("warning", "Instance {subject} is silent"),
    "instance-back": ("good", "Instance {subject} is heard again"),
    "stress-test": ("info", "The stress test {subject} was started from the console"),
}


def describe(event: Event, instance: Summary) -> EventRow:
    """Render an event as text."""
    level, text = _TEXTS[event.kind]
    shown = text.format(subject="others" if event.subject == OTHER else event.subject, count=event.count)
    if event.count == 1:
        shown = shown.replace("1 claims", "1 claim")
    return EventRow(event.at, level, shown, instance.name, f"{instance.id}-{event.number}")


def merge_events(heard: Iterable[Heard]) -> list[tuple[Event, Summary]]:
    """Merge the events of all instances by this instance's clock, newest first.

    If several instances report the same event (a coupon is sold out), the earliest is kept. Unknown kinds, which newer
    versions may have, are skipped.
    """
    found: dict[tuple[str, str], tuple[Event, Summary]] = {}
    for each in heard:
        summary = each.summary
        for reported in summary.events:
            if reported.kind not in _TEXTS:
                continue
            offset = each.clock_offset_seconds
            event = replace(reported, at=reported.at + offset) if offset else reported
            if event.kind == "sold-out":
                key = event.kind, event.subject
            elif event.kind.startswith("instance-"):  # several instances report it, at different times
                key = f"{event.kind} {event.at // _SAME_SECONDS:.0f}", event.subject
            else:
                key = summary.id, str(event.number)
            if key not in found or event.at < found[key][0].at:
                found[key] = event, summary
    return sorted(found.values(), key=lambda pair: pair[0].at, reverse=True)[:MOST_EVENTS]


def quantile_ms(counts: Sequence[float], share: float) -> float | None:
    """Estimate a quantile in milliseconds by linear interpolation; None if nothing was counted.

    Args:
        counts: for each of `LATENCY_BOUNDS`.
        share: the quantile, from 0 to 1.
    """
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
