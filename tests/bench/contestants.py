"""Who is measured, and how: the tables that a new strategy or a new step of growth is added to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tests.bench import features
from tests.bench.features import Feature

# Every way to admit a claim. The first is what a coupon gets that names none; one that this service does not know
# (it refuses to make such a coupon) is left out with a note.
STRATEGIES = ("redlock", "row_lock", "counter")
DEFAULT_STRATEGY = STRATEGIES[0]
ROW_LOCK = STRATEGIES[1]

MASTERS = 5  # how many are started; contestants use the first 1, 3 or 5
MAIN_DATABASE = "claimsvc"
CONNECTIONS = 64
# The same for each of three instances, so that a fair share is a third; and for one, to compare with.
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

ONE = "1 instance"
THREE = "3 instances"
THREE_APART = "3 instances, combining off"
EIGHT = "8 instances"

# One hot coupon each, one worker.
PLAIN = "plain"
KEYED = "Idempotency-Key"
QUOTA = "address quota"
CODES = "codes"
RULES = "rules"
TWO_PER_USER = "2 per user"
HOLD = "hold"
QUEUE = "joining a queue"
TOKEN_SEEN = "token seen before"
TOKEN_NEW = "token never seen"

# Off, instances take turns at the lock of a coupon.
COMBINING = "CLAIMSVC_COMBINING"
# How many users have a token that the service has verified before; they claim one coupon after another. As many as
# make the change of the coupon rare, and as few as a worker can remember.
_USERS_SEEN = 2000

Kind = Literal["claimsvc", "floor", "lock-per-claim", "for-update", "responder"]


@dataclass(frozen=True, slots=True)
class Server:
    """One server process (with its workers).

    Args:
        number: tells instances apart that are alike otherwise.
        settings: further variables, which win over those that the bench was given.
        verifies_tokens: whether users need tokens.
    """

    kind: Kind
    masters: int = 3
    workers: int = 1
    number: int = 1
    database: str = MAIN_DATABASE
    settings: tuple[tuple[str, str], ...] = ()
    verifies_tokens: bool = False


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
        feature: what its coupons and claims have.
        users: how many there are, who claim one coupon after another; 0 if every claim is a new user's.
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
    feature: Feature = features.PLAIN
    users: int = 0

    @property
    def expected(self) -> str:
        """The outcome that counts."""
        return "409 sold-out" if self.sold_out else self.feature.expected

    @property
    def is_kept(self) -> bool:
        """Whether it claims from the same coupons in all rounds."""
        return self.coupons > 1 or self.existing_claims > 0


@dataclass(frozen=True, slots=True)
class Phase:
    """Contestants that are measured in the same rounds.

    Args:
        base: whom the others are compared with: the contestant of that name, or of those whose names begin with it
            the one with as many connections.
        least_seconds: how long each is measured at least, in a round.
    """

    name: str
    title: str
    contestants: tuple[Contestant, ...]
    base: str = FLOOR
    least_seconds: float = 0.0


def strategy_contestant(strategy: str, variant: str = "") -> str:
    """The name of a strategy's contestant: the hot coupon with 3 masters and 1 worker, or a variant of that."""
    return f"{strategy}, {variant}" if variant else strategy


def workers_contestant(count: int) -> str:
    """The name of the contestant with so many workers."""
    return f"{count} worker{'s' * (count > 1)}"


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
        Phase(
            "instances",
            "Instances",
            _instances(strategies, quick=quick),
            strategy_contestant(DEFAULT_STRATEGY, ONE),
            # One of them decides for the others for a second, and has more claims meanwhile.
            least_seconds=3.0,
        ),
        Phase("workers", "Workers, one hot coupon", _workers(strategies, quick=quick), workers_contestant(1)),
        Phase("features", "Features, one hot coupon", _features(), PLAIN),
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
    ) -> Contestant:
        return Contestant(strategy_contestant(strategy, name), servers, strategy, coupons, skew, sold_out)

    found = [
        variant(""),
        variant("1 master", (Server("claimsvc", masters=1),)),
        variant("5 masters", (Server("claimsvc", masters=5),)),
        variant("1,000 coupons", coupons=_MANY_COUPONS),
        variant("sold out", sold_out=True),
    ]
    if not quick:
        found.append(variant("Zipf", coupons=_MANY_COUPONS, skew=_ZIPF_EXPONENT))
    return found


def _instances(strategies: Sequence[str], *, quick: bool) -> tuple[Contestant, ...]:
    def of(
        name: str,
        count: int,
        *,
        strategy: str = DEFAULT_STRATEGY,
        coupons: int = 1,
        connections: int = _CONNECTIONS_OF_THREE,
        settings: tuple[tuple[str, str], ...] = (),
    ) -> Contestant:
        servers = tuple(Server("claimsvc", number=1 + number, settings=settings) for number in range(count))
        return Contestant(
            strategy_contestant(strategy, name), servers, strategy, coupons=coupons, connections=connections
        )

    # The default strategy is there in any case; of the others, `row_lock` is what it is judged by.
    others = [strategy for strategy in strategies[1:] if not quick or strategy == ROW_LOCK]
    return (
        of(ONE, 1),
        of(THREE, 3),
        of(THREE_APART, 3, settings=((COMBINING, "off"),)),
        *(of(THREE, 3, strategy=strategy) for strategy in others),
        of(EIGHT, 8, connections=CONNECTIONS),
        of(f"1,000 coupons, {ONE}", 1, coupons=_MANY_COUPONS),
        of(f"1,000 coupons, {THREE}", 3, coupons=_MANY_COUPONS),
    )


def _workers(strategies: Sequence[str], *, quick: bool) -> tuple[Contestant, ...]:
    found = [Contestant(workers_contestant(count), (Server("claimsvc", workers=count),)) for count in (1, 2, 4)]
    if not quick:
        found += [
            Contestant(strategy_contestant(strategy, workers_contestant(2)), (Server("claimsvc", workers=2),), strategy)
            for strategy in strategies[1:]
        ]
    return tuple(found)


def _features() -> tuple[Contestant, ...]:
    one = (Server("claimsvc"),)
    # Of all clients together, which have one address here; no machine comes near it.
    limited = (Server("claimsvc", settings=(("CLAIMSVC_QUOTA_ADDRESS", "100000/1"),)),)
    verifying = (Server("claimsvc", verifies_tokens=True),)
    return (
        Contestant(PLAIN, one),
        Contestant(KEYED, one, feature=features.KEYED),
        Contestant(QUOTA, limited),
        Contestant(CODES, one, feature=features.CODES),
        Contestant(RULES, one, feature=features.RULES),
        Contestant(TWO_PER_USER, one, feature=features.TWO_PER_USER),
        Contestant(HOLD, one, feature=features.HOLD),
        Contestant(QUEUE, one, feature=features.QUEUE),
        Contestant(TOKEN_SEEN, verifying, feature=features.TOKEN_SEEN, users=_USERS_SEEN),
        Contestant(TOKEN_NEW, verifying, feature=features.TOKEN_NEW),
    )


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
