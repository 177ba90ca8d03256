"""Who is measured, and how: the tables that a new strategy or a new step of growth is added to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

# Every way to admit a claim. The first is what a coupon gets that names none; one that this service does not know
# (it refuses to make such a coupon) is left out with a note.
STRATEGIES = ("redlock", "row_lock", "counter")
DEFAULT_STRATEGY = STRATEGIES[0]

MASTERS = 5  # how many are started; contestants use the first 1, 3 or 5
MAIN_DATABASE = "claimsvc"
CONNECTIONS = 64
# The same for each of three instances, so that a fair share is a third.
_CONNECTIONS_OF_THREE = 66
_MANY_COUPONS = 1000
_ZIPF_EXPONENT = 1.1
_POWERS = {3: "10³", 4: "10⁴", 5: "10⁵", 6: "10⁶", 7: "10⁷"}

FLOOR = "floor"
LOAD_GENERATOR = "load generator alone"
LOCK_PER_CLAIM = "lock per claim"
UNWATCHED = "nobody watches"
WATCHED = "50 viewers of the console"
FOR_UPDATE = "FOR UPDATE per claim"

Kind = Literal["claimsvc", "floor", "lock-per-claim", "for-update", "responder"]


@dataclass(frozen=True, slots=True)
class Server:
    """One server process (with its workers). `number` tells instances apart that are alike otherwise."""

    kind: Kind
    masters: int = 3
    workers: int = 1
    number: int = 1
    database: str = MAIN_DATABASE


@dataclass(frozen=True, slots=True)
class Contestant:
    """What is measured in one go.

    Args:
        name: unique within its phase.
        servers: the instances that are claimed from.
        strategy: how its coupons' claims are admitted, by the service.
        coupons: how many are claimed from.
        skew: see `load.Plan`.
        sold_out: whether there is nothing left to be had.
        existing_claims: how many the coupon has before the first claim.
        viewers: how many watch the console meanwhile.
    """

    name: str
    servers: tuple[Server, ...]
    strategy: str = DEFAULT_STRATEGY
    coupons: int = 1
    skew: float = 0.0
    sold_out: bool = False
    connections: int = CONNECTIONS
    existing_claims: int = 0
    viewers: int = 0

    @property
    def expected(self) -> str:
        """The outcome that counts."""
        return "409 sold-out" if self.sold_out else "201"


@dataclass(frozen=True, slots=True)
class Phase:
    """Contestants that are measured in the same rounds."""

    name: str
    title: str
    contestants: tuple[Contestant, ...]


def strategy_contestant(strategy: str, variant: str = "") -> str:
    """The name of a strategy's contestant: the hot coupon with 3 masters and 1 worker, or a variant of that."""
    return f"{strategy}, {variant}" if variant else strategy


def claims_contestant(power: int) -> str:
    """The name of the contestant with 10^power existing claims."""
    return f"{_POWERS[power]} claims"


def phases(strategies: Sequence[str], *, quick: bool) -> list[Phase]:
    """What there is to measure.

    Args:
        strategies: those that the service knows.
        quick: only what the judged figures need.
    """
    found = [
        Phase("main", "Side by side", _main(strategies, quick=quick)),
        Phase("claims", "Growth: existing claims of the coupon", _growing_claims(quick=quick)),
        Phase("console", "The console, one hot coupon", _console()),
    ]
    if not quick:
        found += [
            Phase("connections", "Growth: connections, one hot coupon", _growing_connections((64, 256, 1024, 4096))),
            Phase("coupons", "Growth: coupons, claimed uniformly", _growing_coupons((1, 10, 100, 1000, 10_000))),
        ]
    return found


def _main(strategies: Sequence[str], *, quick: bool) -> tuple[Contestant, ...]:
    lock, row = (Server("lock-per-claim"),), (Server("for-update"),)
    found = [
        Contestant(LOAD_GENERATOR, (Server("responder"),)),
        _floor(),
        Contestant(LOCK_PER_CLAIM, lock),
        Contestant(f"{LOCK_PER_CLAIM}, 1,000 coupons", lock, coupons=_MANY_COUPONS),
        Contestant(FOR_UPDATE, row),
    ]
    if not quick:
        found += [
            Contestant(f"{LOCK_PER_CLAIM}, Zipf", lock, coupons=_MANY_COUPONS, skew=_ZIPF_EXPONENT),
            Contestant(f"{FOR_UPDATE}, 1,000 coupons", row, coupons=_MANY_COUPONS),
            Contestant(f"{FOR_UPDATE}, Zipf", row, coupons=_MANY_COUPONS, skew=_ZIPF_EXPONENT),
        ]
    for strategy in strategies:
        if not quick or strategy == DEFAULT_STRATEGY:
            found += _variants(strategy, quick=quick)
        else:
            found.append(Contestant(strategy_contestant(strategy), (Server("claimsvc"),), strategy))
    return tuple(found)


def _variants(strategy: str, *, quick: bool) -> list[Contestant]:
    one = (Server("claimsvc"),)

    def variant(
        name: str,
        servers: tuple[Server, ...] = one,
        *,
        coupons: int = 1,
        skew: float = 0.0,
        sold_out: bool = False,
        connections: int = CONNECTIONS,
    ) -> Contestant:
        return Contestant(strategy_contestant(strategy, name), servers, strategy, coupons, skew, sold_out, connections)

    found = [
        variant(""),
        variant("1 master", (Server("claimsvc", masters=1),)),
        variant("5 masters", (Server("claimsvc", masters=5),)),
        variant(
            "3 instances",
            tuple(Server("claimsvc", number=number) for number in (1, 2, 3)),
            connections=_CONNECTIONS_OF_THREE,
        ),
        variant("1,000 coupons", coupons=_MANY_COUPONS),
        variant("sold out", sold_out=True),
    ]
    if not quick:
        found += [
            variant("2 workers", (Server("claimsvc", workers=2),)),
            variant("Zipf", coupons=_MANY_COUPONS, skew=_ZIPF_EXPONENT),
        ]
    return found


def _growing_claims(*, quick: bool) -> tuple[Contestant, ...]:
    # A database for each, so that they can be measured in the same rounds. What the rounds claim is added to them.
    steps = tuple(
        Contestant(
            claims_contestant(power), (Server("claimsvc", database=f"claims_{power}"),), existing_claims=10**power
        )
        for power in ((3, 5) if quick else (3, 5, 7))
    )
    return steps if quick else (_floor(), *steps)


def _console() -> tuple[Contestant, ...]:
    one = (Server("claimsvc"),)
    return Contestant(UNWATCHED, one), Contestant(WATCHED, one, viewers=50)


def _growing_connections(steps: Sequence[int]) -> tuple[Contestant, ...]:
    one = (Server("claimsvc"),)
    return (
        *(_floor(f"{FLOOR}, {count:,} connections", count) for count in steps),
        *(Contestant(f"{count:,} connections", one, connections=count) for count in steps),
    )


def _growing_coupons(steps: Sequence[int]) -> tuple[Contestant, ...]:
    one = (Server("claimsvc"),)
    return (
        _floor(),
        *(Contestant(f"{count:,} coupon{'s' * (count > 1)}", one, coupons=count) for count in steps),
    )


def _floor(name: str = FLOOR, connections: int = CONNECTIONS) -> Contestant:
    return Contestant(name, (Server("floor"),), connections=connections)
