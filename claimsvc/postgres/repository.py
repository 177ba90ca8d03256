"""Coupons, claims and the audit as they are written, listed and read; what decides claims is in `admission`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any
from uuid import UUID

from sqlalchemy import Row, and_, insert, select, text, tuple_

from claimsvc.domain import (
    PLAIN,
    Attempt,
    AuditEntry,
    AuditFilter,
    AuditPosition,
    Campaign,
    Claim,
    ClaimOutcome,
    ClaimPosition,
    ClaimState,
    Coupon,
    CouponDetail,
    CouponExists,
    StrategyName,
    UnknownCoupon,
)
from claimsvc.errors import UnavailableError
from claimsvc.ports import Decision, StorageObserver
from claimsvc.postgres.audit import entries_query
from claimsvc.postgres.claiming.code_pool import CodesChanged
from claimsvc.postgres.claiming.dispatcher import Dispatcher
from claimsvc.postgres.claims import PostgresTransitions, claim_of
from claimsvc.postgres.codes import PostgresCodes
from claimsvc.postgres.connections import UnitOfWork, database_failures, unavailable
from claimsvc.postgres.coupons import CAMPAIGN_COLUMNS, PostgresCampaigns, campaign_of
from claimsvc.postgres.database import Database
from claimsvc.postgres.erasure import PostgresErasure
from claimsvc.postgres.exports import PostgresExports
from claimsvc.postgres.keys import PostgresKeys
from claimsvc.postgres.lists import PostgresAudience
from claimsvc.postgres.migrations import newest_revision
from claimsvc.postgres.tables import audit, campaigns, codes, coupons, user_claims

_COUPON_DETAIL = text(f"""
SELECT coupon.name, coupon.amount, coupon.remaining_amount, coupon.strategy, coupon.created_at,
    ARRAY(
        SELECT user_id FROM user_claims
        WHERE coupon_name = coupon.name AND state = 'active'
        ORDER BY claimed_at, id
        LIMIT :claimants
    ) AS claimed_by,
    {CAMPAIGN_COLUMNS}
FROM coupons AS coupon LEFT JOIN campaigns AS campaign ON campaign.coupon_name = coupon.name
WHERE coupon.name = :name
""")  # noqa: S608 - of constants

_COUPON_COLUMNS = (
    coupons.c.name,
    coupons.c.amount,
    coupons.c.remaining_amount,
    coupons.c.strategy,
    coupons.c.created_at,
)
_IS_ARCHIVED = select(campaigns.c.coupon_name).where(
    campaigns.c.coupon_name == coupons.c.name, campaigns.c.archived_at.is_not(None)
)

_CLAIM = select(user_claims, codes.c.code).outerjoin(
    codes, and_(codes.c.coupon_name == user_claims.c.coupon_name, codes.c.claim_id == user_claims.c.id)
)

# Of the second part there is a row only if the first has none. It looks at all coupons, or at all of the type, to find
# the oldest: it is asked once a second, and an index for it would be taken for the names' one while there are few.
_SHELF = """
WITH shelf AS (
    SELECT coupon.name, coupon.created_at, coupon.remaining_amount > 0 AND NOT coalesce(campaign.paused, false)
        AND coalesce(campaign.starts_at <= now(), true) AND coalesce(campaign.ends_at > now(), true) AS is_open
    FROM coupons AS coupon {join} campaigns AS campaign ON campaign.coupon_name = coupon.name
    WHERE campaign.archived_at IS NULL {of_type}
), on_offer AS (
    SELECT name, created_at FROM shelf WHERE is_open ORDER BY created_at, name LIMIT 20
), newest AS (
    SELECT name, created_at FROM shelf WHERE NOT EXISTS (SELECT FROM on_offer) ORDER BY created_at DESC, name LIMIT 1
)
SELECT name FROM (SELECT * FROM on_offer UNION ALL SELECT * FROM newest) AS found ORDER BY created_at, name
"""
_ON_OFFER = text(_SHELF.format(join="LEFT JOIN", of_type=""))
_ON_OFFER_OF_TYPE = text(_SHELF.format(join="JOIN", of_type="AND campaign.type = :type"))

_SCHEMA_REVISION = text("SELECT version_num FROM alembic_version")


class PostgresStorage:
    """`ports.Storage` and `ports.AuditLog` on PostgreSQL; the rest is on the same connections.

    Args:
        database: where statements run.
        codes_changed: see `CodesChanged`.
    """

    def __init__(
        self,
        database: Database,
        *,
        observer: StorageObserver,
        codes_changed: CodesChanged = lambda _: None,
    ) -> None:
        self._database = database
        self._dispatcher = Dispatcher(database, observer=observer, codes_changed=codes_changed)
        self.campaigns = PostgresCampaigns(database, codes_changed=codes_changed)
        self.transitions = PostgresTransitions(database, codes_changed=codes_changed)
        self.codes = PostgresCodes(database, changed=codes_changed)
        self.audience = PostgresAudience(database)
        self._newest_revision = newest_revision()
        self.keys = PostgresKeys(database)
        self.exports = PostgresExports(database)
        self.erasure = PostgresErasure(database)

    async def admit(self, attempts: Sequence[Attempt]) -> list[Decision]:
        return await self._dispatcher.admit(attempts)

    async def look(self, attempts: Sequence[Attempt]) -> list[ClaimOutcome | None]:
        return await self._dispatcher.look(attempts)

    async def create_coupon(
        self, name: str, amount: int, strategy: StrategyName, campaign: Campaign = PLAIN, *, actor: str = "claimsvc"
    ) -> Coupon | CouponExists:
        """`campaigns.create`, of which nothing is kept under a key."""
        made = await self.campaigns.create(name, amount, strategy, campaign, actor=actor)
        return made if isinstance(made, Coupon) else CouponExists()

    async def coupon(self, name: str, *, claimants: int) -> CouponDetail | None:
        rows = await self._read(_COUPON_DETAIL, {"name": name, "claimants": claimants})
        if not rows:
            return None
        return CouponDetail(_coupon(rows[0]), tuple(rows[0].claimed_by), campaign_of(rows[0]._asdict()))

    async def coupons(self, *, search: str | None, after: str | None, limit: int) -> list[Coupon]:
        query = select(*_COUPON_COLUMNS).where(~_IS_ARCHIVED.exists()).order_by(coupons.c.name).limit(limit)
        if search:
            query = query.where(coupons.c.name.icontains(search, autoescape=True))
        if after is not None:
            query = query.where(coupons.c.name > after)
        return [_coupon(row) for row in await self._read(query)]

    async def claims(self, coupon_name: str, *, after: ClaimPosition | None, limit: int) -> list[Claim] | UnknownCoupon:
        query = (
            select(user_claims)
            .where(user_claims.c.coupon_name == coupon_name, user_claims.c.state == ClaimState.ACTIVE)
            .order_by(user_claims.c.claimed_at, user_claims.c.id)
            .limit(limit)
        )
        if after is not None:
            query = query.where(
                tuple_(user_claims.c.claimed_at, user_claims.c.id) > tuple_(after.claimed_at, UUID(after.id))
            )
        rows = await self._read(query)
        if not rows and not await self._read(select(coupons.c.name).where(coupons.c.name == coupon_name)):
            return UnknownCoupon()
        return [_claim(row) for row in rows]

    async def claim(self, claim_id: str) -> Claim | None:
        rows = await self._read(_CLAIM.where(user_claims.c.id == UUID(claim_id)))
        return _claim(rows[0]) if rows else None

    async def stock(self, names: Sequence[str]) -> list[Coupon]:
        return [_coupon(row) for row in await self._read(select(*_COUPON_COLUMNS).where(coupons.c.name.in_(names)))]

    async def claimable_coupons(self, coupon_type: str | None) -> list[str]:
        """See `ports.Shelf`."""
        statement = _ON_OFFER if coupon_type is None else _ON_OFFER_OF_TYPE
        return [row.name for row in await self._read(statement, {"type": coupon_type})]

    async def record(self, entry: AuditEntry) -> None:
        values = {name: value for name, value in asdict(entry).items() if name not in {"at", "id"}}
        await self._write(insert(audit).returning(audit.c.id), values)

    async def entries(self, asked: AuditFilter, *, after: AuditPosition | None, limit: int) -> list[AuditEntry]:
        statement, values = entries_query(asked, after, limit)
        return [AuditEntry(**row._asdict()) for row in await self._read(text(statement), values)]

    async def trail(self, subject_type: str, subject: str, *, limit: int) -> list[AuditEntry]:
        """What was done to one thing, newest first."""
        return await self.entries(AuditFilter(subject_type, subject), after=None, limit=limit)

    async def check(self) -> None:
        rows = await self._read(_SCHEMA_REVISION)
        found = rows[0].version_num if rows else "none"
        # Revisions are numbers of four digits. A newer one is no trouble: instances of the version before go on while
        # the next is rolled out, so every migration must leave them working.
        if found < self._newest_revision:
            raise UnavailableError(
                f"the database's schema is at revision {found}, not {self._newest_revision}; run `claimsvc migrate`",
                dependency="postgresql",
            )

    async def _read(self, statement: Any, parameters: Mapping[str, Any] | None = None) -> Sequence[Row[Any]]:
        async def ask(unit: UnitOfWork) -> Sequence[Row[Any]]:
            return (await unit.connection.execute(statement, parameters)).all()

        return await self._database.read(ask)

    async def _write(self, statement: Any, parameters: Mapping[str, Any]) -> Row[Any] | None:
        try:
            async with self._database.unit_of_work() as unit:
                return (await unit.connection.execute(statement, parameters)).one_or_none()
        except database_failures as error:
            raise unavailable(error) from error


def _coupon(row: Row[Any]) -> Coupon:
    return Coupon(row.name, row.amount, row.remaining_amount, StrategyName(row.strategy), row.created_at)


def _claim(row: Row[Any]) -> Claim:
    return claim_of(
        str(row.id),
        row.coupon_name,
        row.user_id,
        row.state,
        row.claimed_at,
        row.held_until,
        row.ended_at,
        getattr(row, "code", None),
    )
