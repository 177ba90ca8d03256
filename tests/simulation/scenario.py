"""What happens in one run: drawn from a seed, and written so that it can be repeated and made smaller."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from claimsvc.domain import StrategyName


class Kind(StrEnum):
    """The ways in which the world is unkind. All but the first five end after `seconds`."""

    KILL = "an instance is killed"
    DRAIN = "an instance is told to stop"
    CANCEL_LEADER = "the task that leads a queue is cancelled"
    FORGET_SCRIPTS = "a master forgets its scripts"
    CLOCK_JUMP = "a master's clock jumps"
    PAUSE = "an instance is stopped and goes on later"
    MASTER_DOWN = "a master refuses connections"
    MASTER_RESTART = "a master goes down and comes back with nothing"
    MASTER_HANG = "a master does not answer"
    MASTER_SLOW = "a master answers slowly"
    MASTER_READ_ONLY = "a master takes no writes"
    LOST_REPLIES = "a master's answers are lost"
    LOST_HINTS = "a master's hints are lost"
    PARTITION = "an instance cannot reach a master"
    FOREIGN_HOLDER = "another program holds the lock"
    DATABASE_DOWN = "the database refuses"
    DATABASE_SLOW = "the database is slow"
    DATABASE_UNCERTAIN = "the database does not say whether it has committed"


@dataclass(frozen=True, slots=True)
class Fault:
    """`which` chooses the instance, the master or the coupon, counted from 0 and round again."""

    kind: Kind
    at: float
    seconds: float = 0.0
    which: int = 0


@dataclass(frozen=True, slots=True)
class CouponPlan:
    name: str
    amount: int
    strategy: StrategyName
    exists: bool = True


@dataclass(frozen=True, slots=True)
class ClaimPlan:
    """Made `after` seconds after the client's last answer; the client hangs up after `hang_up` seconds, if ever."""

    coupon: int
    user: str
    after: float
    hang_up: float | None = None


@dataclass(frozen=True, slots=True)
class ClientPlan:
    """Claims one after the other, at one instance."""

    instance: int
    claims: tuple[ClaimPlan, ...]


@dataclass(frozen=True, slots=True)
class Scenario:
    """All that decides a run. `order` is the seed of delays and of whose turn it is."""

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

    @property
    def claims(self) -> int:
        return sum(len(client.claims) for client in self.clients)


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
    is_rush = draw.random() < 0.2
    coupons = tuple(
        CouponPlan(
            name=f"c{number}",
            amount=draw.choice([1, 1, 2, 3, 5, 20]),
            strategy=StrategyName.REDLOCK if is_rush else draw.choices(list(StrategyName), [8, 1, 3])[0],
            exists=draw.random() < 0.97,
        )
        for number in range(1 if is_rush else draw.choice([1, 1, 2, 3]))
    )
    instances = draw.choice([2, 3, 4]) if is_rush else draw.choice([1, 2, 2, 3, 4])
    opening = draw.choice([0.0, 0.005, 0.1, 1.5])
    faults = _faults(draw, opening + 0.02)
    ttl_seconds = draw.choice([1.0, 1.0, 2.0, 20.0])
    if any(fault.kind in _FAULTS_OF_THE_LOCK for fault in faults):
        ttl_seconds = min(ttl_seconds, 2.0)
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
    )


def _clients(draw: random.Random, instances: int, coupons: int, opening: float) -> Iterator[ClientPlan]:
    """Some clients who come within `opening` seconds, and make a few claims each."""
    users = draw.choice([3, 10, 40])
    thinking = draw.choice([0.0, 0.0, 0.001, 0.02])
    hanging_up = draw.choice([0.0, 0.0, 0.0, 0.3])
    for _ in range(draw.choice([1, 2, 4, 8, 12])):
        claims = []
        for number in range(draw.choice([1, 1, 2, 3])):
            # To the microsecond: what is drawn is read again by people.
            after = round(draw.uniform(0, opening if number == 0 else thinking), 6)
            hang_up = round(draw.expovariate(100), 6) if draw.random() < hanging_up else None
            claims.append(ClaimPlan(draw.randrange(coupons), f"u{draw.randrange(users)}", after, hang_up))
        yield ClientPlan(draw.randrange(instances), tuple(claims))


def _rush(draw: random.Random, instances: int) -> Iterator[ClientPlan]:
    """Clients at every instance who go on and on, so that the lock is always wanted."""
    thinking = draw.choice([0.0, 0.001, 0.01])
    claims = draw.choice([4, 10, 10, 10, 40])
    for number in range(instances * draw.choice([1, 2, 3] if claims < 40 else [1, 2])):
        users = [f"u{number}-{claim}" for claim in range(claims)]
        plans = tuple(ClaimPlan(0, user, round(draw.uniform(0, thinking), 6)) for user in users)
        yield ClientPlan(number % instances, plans)


def _faults(draw: random.Random, busy_seconds: float) -> tuple[Fault, ...]:
    """Up to three faults, most of them while claims are made."""
    count = draw.choice([0, 0, 1, 1, 2, 3])
    return tuple(
        Fault(
            kind=draw.choice(list(Kind)),
            at=round(draw.choice([0.0, draw.uniform(0, 0.01), draw.uniform(0, busy_seconds), draw.uniform(0, 1)]), 6),
            seconds=round(draw.choice([0.01, 0.1, 0.6, draw.uniform(0, 3)]), 6),
            which=draw.randrange(12),
        )
        for _ in range(count)
    )


def smaller(scenario: Scenario) -> Iterator[Scenario]:
    """Scenarios with something left out, the most first."""
    for name in ("faults", "clients"):
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
            if claim.hang_up is not None:
                kept = (*client.claims[:each], replace(claim, hang_up=None), *client.claims[each + 1 :])
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
    for change in ({"masters": 1}, {"refused_user": None}, {"waiting_limit": 1000}, {"batch_size": 64}):
        if replace(scenario, **change) != scenario:
            yield replace(scenario, **change)


def _with_client(scenario: Scenario, number: int, client: ClientPlan) -> Scenario:
    return replace(scenario, clients=(*scenario.clients[:number], client, *scenario.clients[number + 1 :]))
