"""What happens in one run: drawn from a seed, and written so that it can be repeated and made smaller."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from claimsvc.domain import StrategyName


class Kind(StrEnum):
    """The ways in which the world is unkind. All but the first six end after `seconds`."""

    KILL = "an instance is killed"
    DRAIN = "an instance is told to stop"
    CANCEL_LEADER = "the task that leads a queue is cancelled"
    FORGET_SCRIPTS = "a master forgets its scripts"
    CLOCK_JUMP = "a master's clock jumps"
    DATABASE_CLOCK = "the database's clock steps back"
    PAUSE = "an instance is stopped and goes on later"
    MASTER_DOWN = "a master refuses connections"
    MASTER_RESTART = "a master goes down and comes back with nothing"
    MASTER_HANG = "a master does not answer"
    MASTER_SLOW = "a master answers slowly"
    MASTER_READ_ONLY = "a master takes no writes"
    LOST_REPLIES = "a master's answers are lost"
    LOST_HINTS = "a master's hints are lost"
    LOST_MESSAGES = "messages between instances are lost on a master"
    DOUBLED_MESSAGES = "messages between instances are doubled on a master"
    LATE_MESSAGES = "messages between instances are late on a master"
    PARTITION = "an instance cannot reach a master"
    FOREIGN_HOLDER = "another program holds the lock"
    FENCE_PURGED = "the fence forgets batches that are a moment old"
    DATABASE_CUT_OFF = "an instance cannot reach the database"
    DATABASE_DOWN = "the database refuses"
    DATABASE_SLOW = "the database is slow"
    DATABASE_UNCERTAIN = "the database does not say whether it has committed"


class Moment(StrEnum):
    """What an instance does just then, as far as combining is concerned."""

    HANDING = "waits for the answer to a batch that it has handed over"
    RECEIVING = "has batches of others that it has not taken"
    DECIDING = "decides batches of others"


@dataclass(frozen=True, slots=True)
class Fault:
    """`which` chooses the instance, the master or the coupon, counted from 0 and round again.

    With a `moment`, it comes later: as soon as an instance does that, and to this instance, if one does soon.
    """

    kind: Kind
    at: float
    seconds: float = 0.0
    which: int = 0
    moment: Moment | None = None


@dataclass(frozen=True, slots=True)
class CouponPlan:
    name: str
    amount: int
    strategy: StrategyName
    exists: bool = True


@dataclass(frozen=True, slots=True)
class ClaimPlan:
    """Made `after` seconds after the client's last answer; the client hangs up after `hang_up` seconds, if ever.

    A client who gets the unit cancels its claim `cancel` seconds later, if ever.
    """

    coupon: int
    user: str
    after: float
    hang_up: float | None = None
    cancel: float | None = None


@dataclass(frozen=True, slots=True)
class Restock:
    """Somebody raises the amount of a coupon, counted from 0 and round again."""

    at: float
    coupon: int
    units: int


@dataclass(frozen=True, slots=True)
class ClientPlan:
    """Claims one after the other, at one instance."""

    instance: int
    claims: tuple[ClaimPlan, ...]


@dataclass(frozen=True, slots=True)
class Scenario:
    """All that decides a run. `order` is the seed of delays and of whose turn it is.

    Some `old_instances`, counted from 0, do not combine. At most `most_of_others` claims of others, about, are decided
    in one transaction.
    """

    order: int
    instances: int
    masters: int
    coupons: tuple[CouponPlan, ...]
    clients: tuple[ClientPlan, ...]
    faults: tuple[Fault, ...] = ()
    ttl_seconds: float = 20.0
    slice_seconds: float = 0.01
    batch_size: int = 64
    concurrent_rounds: int = 2
    queue_timeout_seconds: float = 5.0
    waiting_limit: int = 1000
    network_seconds: float = 0.0002
    transaction_seconds: float = 0.002
    refused_user: str | None = None
    restocks: tuple[Restock, ...] = ()
    old_instances: tuple[int, ...] = ()
    most_of_others: int = 2000
    duty_seconds: float = 1.0

    @property
    def copies(self) -> bool:
        """Whether messages between instances are hurt."""
        return any(fault.kind in _HURT_MESSAGES for fault in self.faults)

    @property
    def claims(self) -> int:
        return sum(len(client.claims) for client in self.clients)


_HURT_MESSAGES = {Kind.LOST_MESSAGES, Kind.DOUBLED_MESSAGES, Kind.LATE_MESSAGES}

LOCK_RETRIES = 3
LOCK_RETRY_WAIT_SECONDS = 0.5

_FAULTS_OF_THE_LOCK = {
    Kind.CLOCK_JUMP,
    Kind.MASTER_DOWN,
    Kind.MASTER_RESTART,
    Kind.MASTER_HANG,
    Kind.MASTER_SLOW,
    Kind.MASTER_READ_ONLY,
    Kind.LOST_REPLIES,
    Kind.PARTITION,
    Kind.FOREIGN_HOLDER,
    Kind.KILL,
    Kind.PAUSE,
}


def may_strand_locks(scenario: Scenario) -> bool:
    """Whether a lock can be left to its time to live with nobody to blame for it."""
    return any(fault.kind in _FAULTS_OF_THE_LOCK for fault in scenario.faults)


def scenario_of(seed: int) -> Scenario:
    """The scenario that a seed stands for."""
    draw = random.Random(seed)
    is_rush = draw.random() < 0.3
    coupons = tuple(
        CouponPlan(
            name=f"c{number}",
            amount=draw.choice([3, 20, 1000, 1000] if is_rush else [1, 1, 2, 3, 5, 20]),
            strategy=StrategyName.REDLOCK if is_rush else draw.choices(list(StrategyName), [8, 1, 3])[0],
            exists=draw.random() < 0.97,
        )
        for number in range(1 if is_rush else draw.choice([1, 1, 2, 3]))
    )
    instances = draw.choice([2, 3, 4]) if is_rush else draw.choice([1, 2, 2, 3, 4])
    opening = draw.choice([0.0, 0.005, 0.1, 1.5])
    hurts_messages = is_rush and draw.random() < 0.3
    faults = _faults_of_messages(draw) if hurts_messages else _faults(draw, opening + 0.02)
    ttl_seconds = draw.choice([1.0, 1.0, 2.0, 20.0])
    if any(fault.kind in _FAULTS_OF_THE_LOCK for fault in faults):
        # The shortest is over within a pause in which others still wait for answers.
        ttl_seconds = draw.choice([0.3, 1.0, 2.0]) if hurts_messages else min(ttl_seconds, 2.0)
    clients = _rush(draw, instances) if is_rush else _clients(draw, instances, len(coupons), opening)
    return Scenario(
        order=draw.randrange(2**32),
        instances=instances,
        masters=draw.choice([1, 3, 3]),
        coupons=coupons,
        clients=tuple(clients),
        faults=faults,
        ttl_seconds=ttl_seconds,
        slice_seconds=draw.choice([0.001, 0.01, 0.01]),
        batch_size=draw.choice([1, 2, 4, 64]),
        concurrent_rounds=draw.choice([1, 2]),
        queue_timeout_seconds=draw.choice([2.0, 5.0]),
        waiting_limit=draw.choice([3, 1000, 1000, 1000]),
        network_seconds=draw.choice([0.0001, 0.0003, 0.001]),
        transaction_seconds=draw.choice([0.0005, 0.002, 0.005]),
        refused_user="u1" if draw.random() < 0.1 else None,
        restocks=tuple(_restocks(draw, opening + 0.02)),
        old_instances=draw.choice([(), (), (), (0,), (1,), tuple(range(instances))]),
        most_of_others=draw.choice([1, 4, 2000, 2000]),
        duty_seconds=draw.choice([0.01, 0.05, 1.0]),
    )


def _clients(draw: random.Random, instances: int, coupons: int, opening: float) -> Iterator[ClientPlan]:
    """Some clients who come within `opening` seconds, and make a few claims each."""
    users = draw.choice([3, 10, 40])
    thinking = draw.choice([0.0, 0.0, 0.001, 0.02])
    hanging_up = draw.choice([0.0, 0.0, 0.0, 0.3])
    cancelling = draw.choice([0.0, 0.0, 0.5])
    for _ in range(draw.choice([1, 2, 4, 8, 12])):
        claims = []
        for number in range(draw.choice([1, 1, 2, 3])):
            # To the microsecond: what is drawn is read again by people.
            after = round(draw.uniform(0, opening if number == 0 else thinking), 6)
            hang_up = round(draw.expovariate(100), 6) if draw.random() < hanging_up else None
            coupon, user = draw.randrange(coupons), f"u{draw.randrange(users)}"
            claims.append(ClaimPlan(coupon, user, after, hang_up, _cancel(draw, cancelling)))
        yield ClientPlan(draw.randrange(instances), tuple(claims))


def _rush(draw: random.Random, instances: int) -> Iterator[ClientPlan]:
    """Clients at every instance who go on and on, so that the lock is always wanted."""
    thinking = draw.choice([0.0, 0.001, 0.01])
    claims = draw.choice([4, 10, 10, 10, 40])
    cancelling = draw.choice([0.0, 0.0, 0.5])
    for number in range(instances * draw.choice([1, 2, 3] if claims < 40 else [1, 2])):
        users = [f"u{number}-{claim}" for claim in range(claims)]
        plans = tuple(
            ClaimPlan(0, user, round(draw.uniform(0, thinking), 6), cancel=_cancel(draw, cancelling)) for user in users
        )
        yield ClientPlan(number % instances, plans)


def _cancel(draw: random.Random, share: float) -> float | None:
    """When a claim is cancelled: at once, or when late copies of messages arrive."""
    return round(draw.choice([0.0, 0.01, 0.5]) * draw.random(), 6) if draw.random() < share else None


def _restocks(draw: random.Random, busy_seconds: float) -> Iterator[Restock]:
    for _ in range(draw.choice([0, 0, 0, 1, 2])):
        yield Restock(round(draw.uniform(0, busy_seconds + 0.1), 6), draw.randrange(3), draw.choice([1, 5]))


def _faults(draw: random.Random, busy_seconds: float) -> tuple[Fault, ...]:
    """Up to three faults, most of them while claims are made."""
    count = draw.choice([0, 0, 1, 1, 2, 3])
    return tuple(
        Fault(
            kind=draw.choice(list(Kind)),
            at=round(draw.choice([0.0, draw.uniform(0, 0.01), draw.uniform(0, busy_seconds), draw.uniform(0, 1)]), 6),
            seconds=round(draw.choice([0.01, 0.1, 0.6, draw.uniform(0, 3)]), 6),
            which=draw.randrange(12),
            moment=draw.choice([None, *Moment]),
        )
        for _ in range(count)
    )


_PLAINER: tuple[dict[str, Any], ...] = (
    {"masters": 1},
    {"refused_user": None},
    {"waiting_limit": 1000},
    {"batch_size": 64},
    {"old_instances": ()},
    {"most_of_others": 2000},
    {"duty_seconds": 1.0},
)


def _faults_of_messages(draw: random.Random) -> tuple[Fault, ...]:
    """Copies of messages come twice or late on all masters, while something happens to those who decide them."""
    faults = [
        Fault(draw.choice([Kind.DOUBLED_MESSAGES, Kind.DOUBLED_MESSAGES, Kind.LATE_MESSAGES]), 0.0, 3.0, which)
        for which in range(3)
    ]
    kinds = [
        Kind.FENCE_PURGED,
        Kind.FENCE_PURGED,
        Kind.PAUSE,
        Kind.KILL,
        Kind.CANCEL_LEADER,
        Kind.DATABASE_UNCERTAIN,
        Kind.DATABASE_SLOW,
    ]
    for _ in range(draw.choice([1, 2, 3])):
        at = round(draw.uniform(0, 0.1), 6)
        moment = draw.choice([Moment.DECIDING, Moment.DECIDING, Moment.RECEIVING, Moment.HANDING])
        faults.append(Fault(draw.choice(kinds), at, draw.choice([0.01, 0.1, 0.4, 1.0]), draw.randrange(12), moment))
    return tuple(faults)


def smaller(scenario: Scenario) -> Iterator[Scenario]:
    """Scenarios with something left out, the most first."""
    for name in ("faults", "clients", "restocks"):
        parts = getattr(scenario, name)
        size = max(1, len(parts) // 2)
        while parts and size:
            for start in range(0, len(parts), size):
                yield replace(scenario, **{name: parts[:start] + parts[start + size :]})
            size //= 2
    for number, client in enumerate(scenario.clients):
        for left_out in range(len(client.claims) if len(client.claims) > 1 else 0):
            kept = client.claims[:left_out] + client.claims[left_out + 1 :]
            yield _with_client(scenario, number, replace(client, claims=kept))
        for each, claim in enumerate(client.claims):
            for calmer in (replace(claim, hang_up=None), replace(claim, cancel=None)):
                if calmer != claim:
                    kept = (*client.claims[:each], calmer, *client.claims[each + 1 :])
                    yield _with_client(scenario, number, replace(client, claims=kept))
    if scenario.instances > 1:
        fewer = scenario.instances - 1
        clients = tuple(replace(client, instance=min(client.instance, fewer - 1)) for client in scenario.clients)
        yield replace(scenario, instances=fewer, clients=clients)
    if len(scenario.coupons) > 1:
        clients = tuple(
            replace(client, claims=tuple(replace(claim, coupon=0) for claim in client.claims))
            for client in scenario.clients
        )
        yield replace(scenario, coupons=scenario.coupons[:1], clients=clients)
    for change in _PLAINER:
        if replace(scenario, **change) != scenario:
            yield replace(scenario, **change)


def _with_client(scenario: Scenario, number: int, client: ClientPlan) -> Scenario:
    return replace(scenario, clients=(*scenario.clients[:number], client, *scenario.clients[number + 1 :]))
