"""Every statement that this service sends to PostgreSQL."""

import asyncio
import os
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from sqlalchemy import Row, select, text, tuple_
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from claimsvc.domain import (
    AlreadyClaimed,
    Claim,
    Claimed,
    ClaimPosition,
    ClaimState,
    Coupon,
    CouponDetail,
    CouponExists,
    Outcome,
    SoldOut,
    StrategyName,
    UnknownCoupon,
)
from claimsvc.errors import ClaimsvcError, InvariantViolatedError, UnavailableError
from claimsvc.ports import Attempt, Decision, StorageObserver
from claimsvc.storage.migrations import newest_revision
from claimsvc.storage.tables import coupons, user_claims

# Whoever admits locks the coupons' rows first, in a statement of its own: the next statement then gets a snapshot that
# is newer than the locks, and sees every claim that was committed before them. Always in the order of the names, so
# that two transactions never wait for each other.
_LOCK_COUPONS = text("SELECT name FROM coupons WHERE name = ANY (:coupon_names) ORDER BY name FOR NO KEY UPDATE")

_ADMIT = text("""
WITH attempt AS (
    SELECT claim_id, coupon_name, user_id, place
    FROM unnest(CAST(:claim_ids AS uuid[]), CAST(:coupon_names AS text[]), CAST(:user_ids AS text[]))
        WITH ORDINALITY AS given (claim_id, coupon_name, user_id, place)
), stock AS (
    SELECT asked.coupon_name, coupon.remaining_amount
    FROM (SELECT DISTINCT coupon_name FROM attempt) AS asked
    CROSS JOIN LATERAL (SELECT remaining_amount FROM coupons WHERE name = asked.coupon_name LIMIT 1) AS coupon
), held AS (
    -- One look-up in the unique index for each user. LIMIT keeps the planner from turning it into a scan of all the
    -- coupon's claims, which is what it prefers while the table is small, and then keeps to.
    SELECT claimant.coupon_name, claimant.user_id, claim.id, claim.claimed_at
    FROM (SELECT DISTINCT coupon_name, user_id FROM attempt) AS claimant
    CROSS JOIN LATERAL (
        SELECT id, claimed_at
        FROM user_claims
        WHERE coupon_name = claimant.coupon_name AND user_id = claimant.user_id AND state = 'active'
        LIMIT 1
    ) AS claim
), candidate AS (
    -- Each user's first attempt. Who holds a claim is dropped before the stock is counted out.
    SELECT DISTINCT ON (coupon_name, user_id) claim_id, coupon_name, user_id, place
    FROM attempt
    WHERE (coupon_name, user_id) NOT IN (SELECT coupon_name, user_id FROM held)
    ORDER BY coupon_name, user_id, place
), line AS (
    SELECT claim_id, coupon_name, user_id, row_number() OVER (PARTITION BY coupon_name ORDER BY place) AS position
    FROM candidate
), admitted AS (
    INSERT INTO user_claims (id, coupon_name, user_id, state, claimed_at)
    SELECT claim_id, coupon_name, user_id, 'active', statement_timestamp()
    FROM line JOIN stock USING (coupon_name)
    WHERE position <= remaining_amount
    RETURNING id, coupon_name, user_id, claimed_at
), decremented AS (
    UPDATE coupons
    SET remaining_amount = coupons.remaining_amount - sold.units
    FROM (SELECT coupon_name, count(*) AS units FROM admitted GROUP BY coupon_name) AS sold
    WHERE name = sold.coupon_name
    RETURNING name AS coupon_name, sold.units
), holder AS (
    SELECT coupon_name, user_id, id, claimed_at FROM held
    UNION ALL
    SELECT coupon_name, user_id, id, claimed_at FROM admitted
)
SELECT stock.coupon_name IS NOT NULL AS known, holder.id, holder.claimed_at, decremented.units
FROM attempt
LEFT JOIN stock USING (coupon_name)
LEFT JOIN holder USING (coupon_name, user_id)
LEFT JOIN decremented USING (coupon_name)
ORDER BY attempt.place
""")

# What can be said without any lock: who holds a claim, and whether anything is left. True of one moment.
_LOOK = text("""
SELECT coupon.name IS NOT NULL AS known, coupon.remaining_amount, claim.id, claim.claimed_at
FROM unnest(CAST(:coupon_names AS text[]), CAST(:user_ids AS text[]))
    WITH ORDINALITY AS attempt (coupon_name, user_id, place)
LEFT JOIN LATERAL (
    SELECT name, remaining_amount FROM coupons WHERE name = attempt.coupon_name LIMIT 1
) AS coupon ON true
LEFT JOIN LATERAL (
    SELECT id, claimed_at
    FROM user_claims
    WHERE coupon_name = attempt.coupon_name AND user_id = attempt.user_id AND state = 'active'
    LIMIT 1
) AS claim ON true
ORDER BY attempt.place
""")

_COMMITTED_CLAIMS = text("""
SELECT claim.id
FROM unnest(CAST(:claim_ids AS uuid[]), CAST(:coupon_names AS text[])) AS given (claim_id, coupon_name)
CROSS JOIN LATERAL (
    SELECT id FROM user_claims WHERE id = given.claim_id AND coupon_name = given.coupon_name LIMIT 1
) AS claim
""")

_CREATE_COUPON = text("""
INSERT INTO coupons (name, amount, remaining_amount, strategy) VALUES (:name, :amount, :amount, :strategy)
ON CONFLICT (name) DO NOTHING
RETURNING name, amount, remaining_amount, strategy, created_at
""")

_COUPON_DETAIL = text("""
SELECT name, amount, remaining_amount, strategy, created_at,
    ARRAY(
        SELECT user_id FROM user_claims
        WHERE coupon_name = coupons.name AND state = 'active'
        ORDER BY claimed_at, id
        LIMIT :claimants
    ) AS claimed_by
FROM coupons WHERE name = :name
""")

_SCHEMA_REVISION = text("SELECT version_num FROM alembic_version")

_RESOLVE_PAUSE_SECONDS = 0.1


class PostgresStorage:
    """`ports.Storage` on PostgreSQL.

    Args:
        engine: the pool of connections.
        unit_timeout_seconds: bound on one unit of work, waiting for the server's answers included. It is longer
            than the server's own statement time-out, and ends what that cannot: a server that is frozen.
    """

    def __init__(self, engine: AsyncEngine, *, unit_timeout_seconds: float, observer: StorageObserver) -> None:
        self._engine = engine
        self._observer = observer
        self._unit_timeout_seconds = unit_timeout_seconds
        self._newest_revision = newest_revision()

    async def admit(self, attempts: Sequence[Attempt]) -> list[Decision]:
        started = time.perf_counter()
        try:
            return list(await self._admit_surely(attempts))
        except InvariantViolatedError:
            self._observer.invariant_violated()
            raise
        except (IntegrityError, DataError) as error:
            # Nothing was written. The row at fault is found by halving, so that it sinks alone.
            if len(attempts) == 1:
                self._observer.invariant_violated()
                refused = InvariantViolatedError("the database refused a claim that the service's rules admit")
                refused.__cause__ = error
                return [refused]
        finally:
            self._observer.transaction_ended(time.perf_counter() - started)
        half = len(attempts) // 2
        decisions: list[Decision] = []
        for part in (attempts[:half], attempts[half:]):
            try:
                decisions += await self.admit(part)
            except ClaimsvcError as error:
                decisions += [error] * len(part)
        return decisions

    async def _admit_surely(self, attempts: Sequence[Attempt]) -> list[Outcome]:
        """Admit in one transaction, and know in the end whether it was committed."""
        for may_be_stale in (True, False):
            outcomes: list[Outcome] | None = None
            try:
                async with self._connection() as connection:
                    decided = await _decide(connection, attempts)
                    outcomes = decided  # from here on a lost answer leaves the commit in doubt
                    await connection.commit()
                return decided
            except (IntegrityError, DataError):
                raise
            except SQLAlchemyError as error:
                if outcomes is not None:
                    return await self._resolve(outcomes, error)
                # COMMIT was never sent, so nothing was written. The pool may have lent us a connection that died
                # while it lay idle (the server was restarted); a fresh one deserves one try.
                if not (may_be_stale and isinstance(error, DBAPIError) and error.connection_invalidated):
                    raise _unavailable(error) from error
        raise AssertionError("unreachable: the second round returns or raises")

    async def _resolve(self, outcomes: list[Outcome], cause: SQLAlchemyError) -> list[Outcome]:
        """The answer to COMMIT was lost: read whether it happened.

        The transaction in doubt held the coupons' row locks when COMMIT was sent. Once we hold them ourselves it has
        ended, one way or the other, and what we read is final.
        """
        new = [outcome.claim for outcome in outcomes if isinstance(outcome, Claimed)]
        if not new:
            return outcomes  # it wrote nothing; its answers were true under the lock
        deadline = asyncio.get_running_loop().time() + self._unit_timeout_seconds
        while True:
            try:
                async with self._connection() as connection:
                    names = [claim.coupon_name for claim in new]
                    await connection.execute(_LOCK_COUPONS, {"coupon_names": sorted(set(names))})
                    found = await connection.execute(
                        _COMMITTED_CLAIMS, {"claim_ids": [claim.id for claim in new], "coupon_names": names}
                    )
                    committed = len(found.all())
                break
            except SQLAlchemyError as error:
                if asyncio.get_running_loop().time() >= deadline:
                    raise UnavailableError(
                        "PostgreSQL did not say whether the claim was kept; ask again to learn it",
                        dependency="postgresql",
                    ) from error
            await asyncio.sleep(_RESOLVE_PAUSE_SECONDS)
        if committed == len(new):
            return outcomes
        if committed == 0:
            raise _unavailable(cause) from cause
        raise InvariantViolatedError(f"{committed} of {len(new)} claims of one transaction were found")

    async def look(self, attempts: Sequence[Attempt]) -> list[Outcome | None]:
        rows = await self._read(
            _LOOK,
            {
                "coupon_names": [attempt.coupon_name for attempt in attempts],
                "user_ids": [attempt.user_id for attempt in attempts],
            },
        )
        return [
            None if row.known and row.id is None and row.remaining_amount else _outcome(attempt, row)
            for attempt, row in zip(attempts, rows, strict=True)
        ]

    async def create_coupon(self, name: str, amount: int, strategy: StrategyName) -> Coupon | CouponExists:
        row = await self._write(_CREATE_COUPON, {"name": name, "amount": amount, "strategy": strategy})
        return CouponExists() if row is None else _coupon(row)

    async def coupon(self, name: str, *, claimants: int) -> CouponDetail | None:
        rows = await self._read(_COUPON_DETAIL, {"name": name, "claimants": claimants})
        return CouponDetail(_coupon(rows[0]), tuple(rows[0].claimed_by)) if rows else None

    async def coupons(self, *, search: str | None, after: str | None, limit: int) -> list[Coupon]:
        query = select(coupons).order_by(coupons.c.name).limit(limit)
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
            query = query.where(tuple_(user_claims.c.claimed_at, user_claims.c.id) > tuple_(after.claimed_at, after.id))
        rows = await self._read(query)
        if not rows and not await self._read(select(coupons.c.name).where(coupons.c.name == coupon_name)):
            return UnknownCoupon()
        return [_claim(row) for row in rows]

    async def claim(self, claim_id: UUID) -> Claim | None:
        rows = await self._read(select(user_claims).where(user_claims.c.id == claim_id))
        return _claim(rows[0]) if rows else None

    async def stock(self, names: Sequence[str]) -> list[Coupon]:
        return [_coupon(row) for row in await self._read(select(coupons).where(coupons.c.name.in_(names)))]

    async def check(self) -> None:
        rows = await self._read(_SCHEMA_REVISION)
        found = rows[0].version_num if rows else "none"
        if found != self._newest_revision:
            raise UnavailableError(
                f"the database's schema is at revision {found}, not {self._newest_revision}; run `claimsvc migrate`",
                dependency="postgresql",
            )

    async def _read(self, statement: Any, parameters: Mapping[str, Any] | None = None) -> Sequence[Row[Any]]:
        try:
            async with self._connection() as connection:
                return (await connection.execute(statement, parameters)).all()
        except SQLAlchemyError as error:
            raise _unavailable(error) from error

    async def _write(self, statement: Any, parameters: Mapping[str, Any]) -> Row[Any] | None:
        try:
            async with self._connection() as connection:
                row = (await connection.execute(statement, parameters)).one_or_none()
                await connection.commit()
                return row
        except SQLAlchemyError as error:
            raise _unavailable(error) from error

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[AsyncConnection]:
        """A connection for one unit of work, severed when the unit takes too long."""
        async with self._engine.connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            watchdog = asyncio.get_running_loop().call_later(self._unit_timeout_seconds, _sever, driver)
            try:
                yield connection
            finally:
                watchdog.cancel()


def _sever(driver_connection: Any) -> None:
    """End the conversation at our side: whoever awaits the server's answer gets an error at once.

    Cancelling the await would not do: psycopg then asks the server to cancel and waits for its answer, which a frozen
    server never gives.
    """
    if not driver_connection.closed:
        with socket.socket(fileno=os.dup(driver_connection.fileno())) as ours:
            ours.shutdown(socket.SHUT_RDWR)


async def _decide(connection: AsyncConnection, attempts: Sequence[Attempt]) -> list[Outcome]:
    """Lock the coupons, then give out what is left of them; not yet committed."""
    names = [attempt.coupon_name for attempt in attempts]
    await connection.execute(_LOCK_COUPONS, {"coupon_names": sorted(set(names))})
    result = await connection.execute(
        _ADMIT,
        {
            "claim_ids": [attempt.claim_id for attempt in attempts],
            "coupon_names": names,
            "user_ids": [attempt.user_id for attempt in attempts],
        },
    )
    rows = result.all()
    outcomes = [_outcome(attempt, row) for attempt, row in zip(attempts, rows, strict=True)]
    inserted = Counter(outcome.claim.coupon_name for outcome in outcomes if isinstance(outcome, Claimed))
    decremented = {name: row.units for name, row in zip(names, rows, strict=True) if row.units}
    if inserted != decremented:
        raise InvariantViolatedError(f"{inserted} claims were inserted, but the stock was decremented by {decremented}")
    return outcomes


def _outcome(attempt: Attempt, row: Row[Any]) -> Outcome:
    if not row.known:
        return UnknownCoupon()
    if row.id is None:
        return SoldOut()
    claim = Claim(row.id, attempt.coupon_name, attempt.user_id, ClaimState.ACTIVE, row.claimed_at)
    return Claimed(claim) if row.id == attempt.claim_id else AlreadyClaimed(claim)


def _coupon(row: Row[Any]) -> Coupon:
    return Coupon(row.name, row.amount, row.remaining_amount, StrategyName(row.strategy), row.created_at)


def _claim(row: Row[Any]) -> Claim:
    return Claim(row.id, row.coupon_name, row.user_id, ClaimState(row.state), row.claimed_at)


def _unavailable(error: SQLAlchemyError) -> UnavailableError:
    """What to tell the caller. The database's own words stay in the error's cause, for the log."""
    if isinstance(error, PoolTimeoutError):
        return UnavailableError("every connection to PostgreSQL is in use", dependency="postgresql")
    return UnavailableError("PostgreSQL cannot be used at the moment", dependency="postgresql")
