"""The scenarios. Each is an entry of `SCENARIOS` with a function that makes a plan from sizes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

from stress_test.errors import UsageError
from stress_test.history import ALREADY_CLAIMED, CLAIMED, SOLD_OUT, CouponPlan, QueuePlan

# All claims are kept in memory until the end; this number needs some hundred megabytes.
MAX_CLAIMS = 500_000
# Default connections of `sustained`: enough for 500 claims/s at half a second each.
SUSTAINED_CONNECTIONS = 250
# So many users of a queue ask twice at once: each n-th.
ASKS_TWICE = 10
# After the start of a draw, so that a clock that is some tenths of a second late does not matter.
_LATE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of a scenario. Each scenario uses the fields that it needs.

    Args:
        claims: number of claims on each coupon.
        quota: units of each coupon; None for one for every claim.
        coupons: number of coupons.
        rate: claims per second.
        duration_seconds: how long claims are sent.
        seed: of the order of claims.
        queue: of the coupon.
        late: users who join after the draw.
        starts_in_seconds: from the creation of the coupon to its start, and so to the draw.
    """

    claims: int = 0
    quota: int | None = None
    coupons: int = 1
    rate: float = 0.0
    duration_seconds: float = 0.0
    seed: int = 0
    queue: QueuePlan | None = None
    late: int = 0
    starts_in_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class PlannedClaim:
    """A claim that is sent `due_seconds` after the release."""

    user_id: str
    coupon_name: str
    due_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of one round: coupons to create, claims to send, and the number of connections to open first."""

    coupons: tuple[CouponPlan, ...]
    claims: tuple[PlannedClaim, ...]
    connections: int


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario. `plan` takes the sizes and a unique token of the round."""

    name: str
    defaults: Sizes
    plan: Callable[[Sizes, str], Plan]


def _herd_expected(claims: int, quota: int) -> Mapping[str, int]:
    winners = min(claims, quota)
    return {CLAIMED: winners, SOLD_OUT: claims - winners}


def _herd(prefix: str) -> Callable[[Sizes, str], Plan]:
    """Many users claim one coupon at the same time."""

    def plan(sizes: Sizes, token: str) -> Plan:
        name = f"{prefix}-{token}"
        quota = sizes.claims if sizes.quota is None else sizes.quota
        coupon = CouponPlan(name, quota, _herd_expected(sizes.claims, quota))
        claims = tuple(PlannedClaim(f"user-{token}-{number:06}", name) for number in range(sizes.claims))
        return Plan((coupon,), claims, connections=sizes.claims)

    return plan


def _double_dip(sizes: Sizes, token: str) -> Plan:
    """One user claims one coupon many times at the same time."""
    name = f"double-dip-{token}"
    quota = sizes.claims if sizes.quota is None else sizes.quota
    coupon = CouponPlan(name, quota, {CLAIMED: 1, ALREADY_CLAIMED: sizes.claims - 1})
    claims = (PlannedClaim(f"user-{token}", name),) * sizes.claims
    return Plan((coupon,), claims, connections=sizes.claims)


def _many_coupons(sizes: Sizes, token: str) -> Plan:
    """Many users claim every coupon, in random order and at the same time."""
    quota = sizes.claims if sizes.quota is None else sizes.quota
    expected = _herd_expected(sizes.claims, quota)
    coupons = tuple(CouponPlan(f"many-coupons-{token}-{number:04}", quota, expected) for number in range(sizes.coupons))
    claims = [
        PlannedClaim(f"user-{token}-{number:06}", coupon.name) for number in range(sizes.claims) for coupon in coupons
    ]
    Random(sizes.seed).shuffle(claims)  # noqa: S311 - an order that a seed repeats, not a secret
    return Plan(coupons, tuple(claims), connections=len(claims))


def _sustained(sizes: Sizes, token: str) -> Plan:
    """New users claim at a fixed rate, on the coupons in turn, whether or not earlier claims were answered."""
    total = max(1, round(sizes.rate * sizes.duration_seconds))
    if total > MAX_CLAIMS:
        raise UsageError(_too_many(total))
    names = tuple(f"sustained-{token}-{number:04}" for number in range(sizes.coupons))
    claims = tuple(
        PlannedClaim(f"user-{token}-{number:06}", names[number % len(names)], number / sizes.rate)
        for number in range(total)
    )
    plentiful = -(-total // len(names))
    coupons = tuple(CouponPlan(name, plentiful if sizes.quota is None else sizes.quota) for name in names)
    return Plan(coupons, claims, connections=min(total, SUSTAINED_CONNECTIONS))


def _queue(sizes: Sizes, token: str) -> Plan:
    """Many users join the queue of one coupon at the same time, and some of them ask twice."""
    name = f"queue-{token}"
    quota = sizes.claims if sizes.quota is None else sizes.quota
    # The second request is right behind the first: with several URLs, it goes to another instance.
    claims = tuple(
        PlannedClaim(f"user-{token}-{number:06}", name)
        for number in range(sizes.claims)
        for _ in range(1 if number % ASKS_TWICE else 2)
    )
    return Plan((CouponPlan(name, quota, queue=sizes.queue),), claims, connections=len(claims))


def _draw(sizes: Sizes, token: str) -> Plan:
    """Many users join a queue before the start of its coupon, when their order is drawn by lot, and some join later."""
    name = f"draw-{token}"
    total = sizes.claims + sizes.late
    coupon = CouponPlan(name, total if sizes.quota is None else sizes.quota, None, sizes.queue, sizes.starts_in_seconds)
    late_seconds = (sizes.starts_in_seconds or 0.0) + _LATE_SECONDS
    claims = tuple(
        PlannedClaim(f"user-{token}-{number:06}", name, 0.0 if number < sizes.claims else late_seconds)
        for number in range(total)
    )
    return Plan((coupon,), claims, connections=total)


def make_plan(scenario: Scenario, sizes: Sizes, token: str) -> Plan:
    """Make the plan of one round.

    Raises:
        UsageError: the sizes need more than `MAX_CLAIMS` claims.
    """
    total = sizes.claims * sizes.coupons + sizes.late
    if total > MAX_CLAIMS:
        raise UsageError(_too_many(total))
    return scenario.plan(sizes, token)


def _too_many(total: int) -> str:
    return f"{total} claims exceed the limit of {MAX_CLAIMS} per round: use fewer, or more --rounds."


_ALL = (
    Scenario("flash-sale", Sizes(claims=100, quota=5), _herd("flash-sale")),
    Scenario("double-dip", Sizes(claims=10, quota=5), _double_dip),
    Scenario("stampede", Sizes(claims=1000, quota=1), _herd("stampede")),
    Scenario("many-coupons", Sizes(claims=50, quota=5, coupons=20), _many_coupons),
    Scenario("sustained", Sizes(rate=200.0, duration_seconds=10.0), _sustained),
    Scenario("queue", Sizes(claims=500, quota=50, queue=QueuePlan(10, 5, 10, 100)), _queue),
    Scenario(
        "draw",
        Sizes(claims=300, quota=320, queue=QueuePlan(50, 10, 60, 1000, "draw"), late=50, starts_in_seconds=5.0),
        _draw,
    ),
)
SCENARIOS: Mapping[str, Scenario] = {scenario.name: scenario for scenario in _ALL}
