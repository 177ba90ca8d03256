"""Storage on a real database, and short words for what is asked of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import uuid_utils.compat as uuid_utils

from claimsvc.domain import PLAIN, Attempt, AuditEntry, AuditFilter, Campaign, Coupon, CouponExists, StrategyName
from claimsvc.domain.admission import Facts
from claimsvc.postgres import ConnectionLimits, Repositories
from claimsvc.postgres.claiming.full_path import FullPath
from claimsvc.postgres.claiming.full_path import _facts as read_facts
from claimsvc.postgres.claiming.sale import Terms
from claimsvc.postgres.connections import Driver
from claimsvc.postgres.database import Database
from claimsvc.postgres.maintenance import PostgresMaintenance
from claimsvc.postgres.pool import open_pool
from tests.support.databases import administrate
from tests.support.observed import Observed
from tests.support.proxy import Proxy, proxy_to

LIMITS = ConnectionLimits(
    pool_size=4,
    pool_timeout_seconds=1.0,
    connect_timeout_seconds=2,
    statement_timeout_seconds=2.0,
    lock_timeout_seconds=1.0,
    idle_in_transaction_timeout_seconds=1.0,
)


@asynccontextmanager
async def open_storage(database_url: str) -> AsyncIterator[tuple[Repositories, Observed]]:
    observed = Observed()
    async with open_pool(database_url, LIMITS, observed) as pool:
        yield Repositories.on(Database(pool, 3.0), observer=observed), observed


@asynccontextmanager
async def open_maintenance(database_url: str) -> AsyncIterator[PostgresMaintenance]:
    async with open_storage(database_url) as (storage, _):
        yield storage.maintenance


async def create_coupon(
    storage: Repositories,
    name: str,
    amount: int,
    strategy: StrategyName,
    campaign: Campaign = PLAIN,
    *,
    actor: str = "claimsvc",
) -> Coupon | CouponExists:
    """Create a coupon without an idempotency key."""
    made = await storage.campaigns.create(name, amount, strategy, campaign, actor=actor)
    assert isinstance(made, Coupon | CouponExists)
    return made


async def entries_about(
    storage: Repositories, subject_type: str, subject: str, *, limit: int = 100
) -> list[AuditEntry]:
    """What the audit says of one thing, newest first."""
    return await storage.audit_log.entries(AuditFilter(subject_type, subject), after=None, limit=limit)


def attempts(*user_ids: str, on: str = "spring") -> list[Attempt]:
    return [Attempt(str(uuid_utils.uuid7()), on, user_id) for user_id in user_ids]


async def learn_terms(path: FullPath, coupon_name: str) -> None:
    """Let the full path try to sell the next batch of a coupon as one, whatever became of the last."""

    async def query(driver: Driver) -> Facts:
        return await read_facts(driver, attempts("nobody", on=coupon_name), locked=False)

    coupon = (await path._database.read(query)).coupons.get(coupon_name)
    terms = Terms.of(coupon) if coupon is not None else None
    if terms is not None:
        path._selling[coupon_name] = terms


def kinds(decisions: object) -> list[str]:
    assert isinstance(decisions, list)
    return [type(decision).__name__ for decision in decisions]


async def remaining(storage: Repositories, name: str = "spring") -> int:
    detail = await storage.coupons.coupon(name, claimants=1000)
    assert detail is not None
    assert detail.coupon.amount - detail.coupon.remaining_amount == len(detail.claimed_by)
    return detail.coupon.remaining_amount


def broken_sums(database_url: str) -> list[tuple[object, ...]]:
    """Coupons whose units do not add up (I2), in one snapshot."""
    return administrate(
        database_url,
        "SELECT name, amount, remaining_amount, count(id) FROM coupons "
        "LEFT JOIN user_claims ON coupon_name = name AND state = 'active' "
        "GROUP BY name HAVING amount - remaining_amount <> count(id)",
    )


def terminate_all_others(database_url: str) -> None:
    administrate(
        database_url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )


@asynccontextmanager
async def open_storage_through_a_proxy(database_url: str) -> AsyncIterator[tuple[Repositories, Observed, Proxy]]:
    target = urlsplit(database_url)
    assert target.hostname is not None
    assert target.port is not None
    async with proxy_to(target.hostname, target.port) as proxy:
        url = database_url.replace(f":{target.port}/", f":{proxy.port}/")
        async with open_storage(url) as (storage, observed):
            yield storage, observed, proxy
