"""What is read from a cluster once a scenario is over: the database's rows, and what is still under way."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psycopg

LOCK_KEYS = "claim:coupon:*"
# The jobs' locks are taken again and again, whether or not anything is claimed.
JOB_LOCKS = b"claim:coupon:job:"


@dataclass(frozen=True, slots=True)
class CouponRow:
    name: str
    amount: int
    remaining: int


@dataclass(frozen=True, slots=True)
class ClaimRow:
    id: str
    coupon: str
    user: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All coupons by name, and all active claims, of one moment."""

    coupons: Mapping[str, CouponRow]
    claims: Sequence[ClaimRow]


def take_snapshot(database_url: str) -> Snapshot:
    with psycopg.connect(database_url) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        coupons = connection.execute("SELECT name, amount, remaining_amount FROM coupons").fetchall()
        claims = connection.execute(
            "SELECT id::text, coupon_name, user_id FROM user_claims WHERE state = 'active'"
        ).fetchall()
    return Snapshot({row[0]: CouponRow(*row) for row in coupons}, [ClaimRow(*row) for row in claims])


@dataclass(frozen=True, slots=True)
class Quiet:
    """What was still under way.

    Args:
        locks: keys of locks, with the master that has them.
        transactions: backends of the service that are not idle.
        gauges: of each instance that runs, what should be 0.
    """

    locks: Sequence[str]
    transactions: Sequence[str]
    gauges: Mapping[str, float]

    @property
    def is_quiet(self) -> bool:
        return not self.locks and not self.transactions and not any(self.gauges.values())


def series(exposition: str, name: str) -> float:
    """The value of a series in Prometheus' text format; 0 if it is not there."""
    found = re.search(rf"^{re.escape(name)} (\S+)$", exposition, re.MULTILINE)
    return float(found[1]) if found else 0.0


def total(exposition: str, name: str) -> float:
    """The sum of all series of a metric, whatever their labels; 0 if there are none."""
    return sum(map(float, re.findall(rf"^{re.escape(name)}(?:{{.*}})? (\S+)$", exposition, re.MULTILINE)))
