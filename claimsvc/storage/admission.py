"""The claim path's last step: PostgreSQL decides who gets a unit. Every statement of that path is here.

They are written for the driver and not for SQLAlchemy, which cannot send two of them in one round trip.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import psycopg
from sqlalchemy.ext.asyncio import AsyncEngine

from claimsvc.domain import AlreadyClaimed, Claim, Claimed, ClaimState, Outcome, SoldOut, UnknownCoupon
from claimsvc.errors import InvariantViolatedError, UnavailableError
from claimsvc.ports import Attempt
from claimsvc.storage.engine import Driver, database_failures, unavailable, unit_of_work

# Whoever admits locks the coupons' rows first, in a statement of its own: the next statement then gets a snapshot that
# is newer than the locks, and sees every claim that was committed before them. Always in the order of the names, so
# that two transactions never wait for each other.
_LOCK_COUPONS = "SELECT name FROM coupons WHERE name = ANY (%(coupon_names)s) ORDER BY name FOR NO KEY UPDATE"

_ADMIT = """
WITH attempt AS (
    SELECT claim_id, coupon_name, user_id, place
    FROM unnest(
        string_to_array(%(claim_ids)s, E'\\n')::uuid[],
        string_to_array(%(coupon_names)s, E'\\n'),
        string_to_array(%(user_ids)s, E'\\n')
    ) WITH ORDINALITY AS given (claim_id, coupon_name, user_id, place)
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
    WHERE name = sold.coupon_name AND coupons.remaining_amount >= sold.units
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
"""

# What can be said without any lock: who holds a claim, and whether anything is left. True of one moment.
_LOOK = """
SELECT coupon.name IS NOT NULL AS known, coupon.remaining_amount, claim.id, claim.claimed_at
FROM unnest(%(coupon_names)s::text[], %(user_ids)s::text[])
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
"""

_COMMITTED_CLAIMS = """
SELECT claim.id
FROM unnest(%(claim_ids)s::uuid[], %(coupon_names)s::text[]) AS given (claim_id, coupon_name)
CROSS JOIN LATERAL (
    SELECT id FROM user_claims WHERE id = given.claim_id AND coupon_name = given.coupon_name LIMIT 1
) AS claim
"""

_RESOLVE_PAUSE_SECONDS = 0.1


class Admission:
    """Decides attempts, in transactions whose end is always known.

    Args:
        unit_timeout_seconds: see `unit_of_work`.
    """

    def __init__(self, engine: AsyncEngine, *, unit_timeout_seconds: float) -> None:
        self._engine = engine
        self._unit_timeout_seconds = unit_timeout_seconds

    async def admit(self, attempts: Sequence[Attempt]) -> list[Outcome]:
        """Admit in one transaction.

        Raises:
            psycopg.IntegrityError, psycopg.DataError: a row was refused; nothing was written.
            UnavailableError: nothing was written, or it could not be found out.
            InvariantViolatedError: nothing was written, because a promise would have been broken.
        """
        for may_be_stale in (True, False):
            outcomes: list[Outcome] | None = None
            driver: Driver | None = None
            try:
                async with unit_of_work(self._engine, self._unit_timeout_seconds) as unit:
                    driver = unit.driver
                    decided = await _decide(driver, attempts)
                    outcomes = decided  # from here on a lost answer leaves the commit in doubt
                    await driver.commit()
                return decided
            except (psycopg.IntegrityError, psycopg.DataError):
                raise
            except database_failures as error:
                if outcomes is not None:
                    return await self._resolve(outcomes, error)
                # COMMIT was never sent, so nothing was written. The pool may have lent us a connection that died
                # while it lay idle (the server was restarted); a fresh one deserves one try.
                if not (may_be_stale and driver is not None and driver.closed):
                    raise unavailable(error) from error
        raise AssertionError("unreachable: the second round returns or raises")

    async def look(self, attempts: Sequence[Attempt]) -> list[Outcome | None]:
        """What can be said of the attempts in this moment without deciding them; see `ports.Storage`."""
        try:
            async with unit_of_work(self._engine, self._unit_timeout_seconds) as unit:
                cursor = await unit.driver.execute(
                    _LOOK,
                    {
                        "coupon_names": [attempt.coupon_name for attempt in attempts],
                        "user_ids": [attempt.user_id for attempt in attempts],
                    },
                )
                rows = await cursor.fetchall()
        except database_failures as error:
            raise unavailable(error) from error
        return [
            None if known and claim_id is None and remaining else _outcome(attempt, known, claim_id, claimed_at)
            for attempt, (known, remaining, claim_id, claimed_at) in zip(attempts, rows, strict=True)
        ]

    async def _resolve(self, outcomes: list[Outcome], cause: Exception) -> list[Outcome]:
        """The answer to COMMIT was lost: read whether it happened.

        The transaction in doubt held the coupons' row locks when COMMIT was sent. Once we hold them ourselves it has
        ended, one way or the other, and what we read is final.
        """
        new = [outcome.claim for outcome in outcomes if isinstance(outcome, Claimed)]
        if not new:
            return outcomes  # it wrote nothing; its answers were true under the lock
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._unit_timeout_seconds
        while True:
            try:
                committed = await self._count_committed(new)
                break
            except database_failures as error:
                if clock() >= deadline:
                    raise UnavailableError(
                        "PostgreSQL did not say whether the claim was kept; ask again to learn it",
                        dependency="postgresql",
                    ) from error
            await asyncio.sleep(_RESOLVE_PAUSE_SECONDS)
        if committed == len(new):
            return outcomes
        if committed == 0:
            raise unavailable(cause) from cause
        raise InvariantViolatedError(f"{committed} of {len(new)} claims of one transaction were found")

    async def _count_committed(self, claims: Sequence[Claim]) -> int:
        names = [claim.coupon_name for claim in claims]
        async with unit_of_work(self._engine, self._unit_timeout_seconds) as unit:
            await unit.driver.execute(_LOCK_COUPONS, {"coupon_names": sorted(set(names))})
            found = await unit.driver.execute(
                _COMMITTED_CLAIMS, {"claim_ids": [claim.id for claim in claims], "coupon_names": names}
            )
            return len(await found.fetchall())


async def _decide(driver: Driver, attempts: Sequence[Attempt]) -> list[Outcome]:
    """Lock the coupons, then give out what is left of them, in one round trip; not yet committed."""
    names = [attempt.coupon_name for attempt in attempts]
    async with driver.pipeline():
        await driver.execute(_LOCK_COUPONS, {"coupon_names": sorted(set(names))})
        admitted = await driver.execute(
            _ADMIT,
            {
                "claim_ids": "\n".join([str(attempt.claim_id) for attempt in attempts]),
                "coupon_names": _lines(names),
                "user_ids": _lines([attempt.user_id for attempt in attempts]),
            },
        )
        rows = await admitted.fetchall()
    outcomes: list[Outcome] = []
    inserted: Counter[str] = Counter()
    decremented: dict[str, int] = {}
    for attempt, (known, claim_id, claimed_at, units) in zip(attempts, rows, strict=True):
        outcome = _outcome(attempt, known, claim_id, claimed_at)
        outcomes.append(outcome)
        if isinstance(outcome, Claimed):
            inserted[attempt.coupon_name] += 1
        if units:
            decremented[attempt.coupon_name] = units
    if inserted != decremented:
        raise InvariantViolatedError(f"{inserted} claims were inserted, but the stock was decremented by {decremented}")
    return outcomes


def _lines(texts: Sequence[str]) -> str:
    """Texts as one parameter, which costs the driver a fraction of what an array of them does.

    Raises:
        psycopg.DataError: one of them is of several lines, and would be taken for several.
    """
    joined = "\n".join(texts)
    if joined.count("\n") != len(texts) - 1:
        raise psycopg.DataError("a name or a user id contains a line break")
    return joined


def _outcome(attempt: Attempt, known: bool, claim_id: UUID | None, claimed_at: datetime) -> Outcome:
    if not known:
        return UnknownCoupon()
    if claim_id is None:
        return SoldOut()
    claim = Claim(claim_id, attempt.coupon_name, attempt.user_id, ClaimState.ACTIVE, claimed_at)
    return Claimed(claim) if claim_id == attempt.claim_id else AlreadyClaimed(claim)
