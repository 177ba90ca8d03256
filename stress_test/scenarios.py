"""What can be fired at the service: each scenario is an entry of `SCENARIOS`, a plan made from sizes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

from stress_test.errors import UsageError
from stress_test.history import ALREADY_CLAIMED, CLAIMED, SOLD_OUT, CouponPlan

# Every claim is kept until the end for the proof; this many take some hundred megabytes.
MAX_CLAIMS = 500_000
# In flight at once in `sustained` unless told otherwise: what 500 claims/s need at half a second each.
SUSTAINED_CONNECTIONS = 250


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large a scenario is; a scenario reads those fields that it needs.

    `claims` and `quota` are for each coupon. `quota` None is as much stock as there are claims. `rate` is
    claims per second, `duration_seconds` is for how long, and `seed` decides the order in which claims are
    shuffled.
    """

    claims: int = 0
    quota: int | None = None
    coupons: int = 1
    rate: float = 0.0
    duration_seconds: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class PlannedClaim:
    """A claim to be sent `due_seconds` after the release."""

    user_id: str
    coupon_name: str
    due_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """One round: coupons to make, claims to send, and how many connections to open for them beforehand."""

    coupons: tuple[CouponPlan, ...]
    claims: tuple[PlannedClaim, ...]
    connections: int


@dataclass(frozen=True, slots=True)
class Scenario:
    """A way to stress the service. `plan` takes sizes and a token that no other round has."""

    name: str
    defaults: Sizes
    plan: Callable[[Sizes, str], Plan]


def _herd_expected(claims: int, quota: int) -> Mapping[str, int]:
    winners = min(claims, quota)
    return {CLAIMED: winners, SOLD_OUT: claims - winners}


def _herd(prefix: str) -> Callable[[Sizes, str], Plan]:
    """Many users, one coupon, all at the same moment."""

    def plan(sizes: Sizes, token: str) -> Plan:
        name = f"{prefix}-{token}"
        quota = sizes.claims if sizes.quota is None else sizes.quota
        coupon = CouponPlan(name, quota, _herd_expected(sizes.claims, quota))
        claims = tuple(PlannedClaim(f"user-{token}-{number:06}", name) for number in range(sizes.claims))
        return Plan((coupon,), claims, connections=sizes.claims)

    return plan


def _double_dip(sizes: Sizes, token: str) -> Plan:
    """One user, one coupon, many times at the same moment."""
    name = f"double-dip-{token}"
    quota = sizes.claims if sizes.quota is None else sizes.quota
    coupon = CouponPlan(name, quota, {CLAIMED: 1, ALREADY_CLAIMED: sizes.claims - 1})
    claims = (PlannedClaim(f"user-{token}", name),) * sizes.claims
    return Plan((coupon,), claims, connections=sizes.claims)


def _many_coupons(sizes: Sizes, token: str) -> Plan:
    """Many users, each after every coupon, in a shuffled order and all at the same moment."""
    quota = sizes.claims if sizes.quota is None else sizes.quota
    expected = _herd_expected(sizes.claims, quota)
    coupons = tuple(CouponPlan(f"many-coupons-{token}-{number:04}", quota, expected) for number in range(sizes.coupons))
    claims = [
        PlannedClaim(f"user-{token}-{number:06}", coupon.name) for number in range(sizes.claims) for coupon in coupons
    ]
    Random(sizes.seed).shuffle(claims)  # noqa: S311 - an order that a seed repeats, not a secret
    return Plan(coupons, tuple(claims), connections=len(claims))


def _sustained(sizes: Sizes, token: str) -> Plan:
    """New users at a fixed rate, dealt to the coupons in turn, answered or not what came before."""
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


def make_plan(scenario: Scenario, sizes: Sizes, token: str) -> Plan:
    """One round of a scenario.

    Raises:
        UsageError: the sizes ask for more than `MAX_CLAIMS` claims.
    """
    total = sizes.claims * sizes.coupons
    if total > MAX_CLAIMS:
        raise UsageError(_too_many(total))
    return scenario.plan(sizes, token)


def _too_many(total: int) -> str:
    return f"{total} claims are more than the {MAX_CLAIMS} of one round: ask for less, or for more --rounds."


_ALL = (
    Scenario("flash-sale", Sizes(claims=100, quota=5), _herd("flash-sale")),
    Scenario("double-dip", Sizes(claims=10, quota=5), _double_dip),
    Scenario("stampede", Sizes(claims=1000, quota=1), _herd("stampede")),
    Scenario("many-coupons", Sizes(claims=50, quota=5, coupons=20), _many_coupons),
    Scenario("sustained", Sizes(rate=200.0, duration_seconds=10.0), _sustained),
)
SCENARIOS: Mapping[str, Scenario] = {scenario.name: scenario for scenario in _ALL}
