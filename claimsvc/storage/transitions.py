"""What becomes of a claim after it was made: it is confirmed, or given back.

Each is one transaction in one round trip. It holds the coupon's row, as whoever claims does, and no Redlock: on a hot
coupon that would make a claim that is given back wait behind all that are made.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncEngine

from claimsvc.domain import (
    AlreadyCancelled,
    AuditEntry,
    Cancelled,
    Claim,
    ClaimState,
    Confirmed,
    HoldExpired,
    KeyReused,
    Once,
    Replayed,
    UnknownClaim,
)
from claimsvc.storage.admission import LOCK_COUPONS
from claimsvc.storage.auditing import audited
from claimsvc.storage.engine import Driver, UnitOfWork, read
from claimsvc.storage.idempotency import concluded, look_up
from claimsvc.storage.plainness import RECKON_PLAINNESS
from claimsvc.storage.ruled import SETTLE_HOLDS
from claimsvc.storage.transactions import decided

_COUPON_OF = "SELECT coupon_name FROM user_claims WHERE id = %(id)s"
_READ = """
SELECT id::text, coupon_name, user_id, state, claimed_at, held_until, ended_at FROM user_claims
WHERE coupon_name = %(coupon_name)s AND id = %(id)s
"""

# A unit comes back for a row that changes its state just here, and for no other: asked for again, nothing happens.
_CANCEL = """
WITH cancelled AS (
    UPDATE user_claims SET state = 'cancelled', ended_at = clock_timestamp()
    WHERE coupon_name = %(coupon_name)s AND id = %(id)s AND state = 'active'
    RETURNING coupon_name
), returned AS (
    UPDATE coupons SET remaining_amount = remaining_amount + 1 FROM cancelled WHERE name = cancelled.coupon_name
    RETURNING name
), told AS (
    INSERT INTO audit (actor, action, subject_type, subject, reason, request_id, details)
    SELECT %(actor)s, %(action)s, %(subject_type)s, %(subject)s, %(reason)s, %(request_id)s, %(details)s FROM cancelled
)
SELECT 1 / (count(*) = (SELECT count(*) FROM returned))::int FROM cancelled
"""

_CONFIRM = """
UPDATE user_claims SET held_until = NULL
WHERE coupon_name = %(coupon_name)s AND id = %(id)s AND state = 'active' AND held_until > now()
"""


_T = TypeVar("_T", Cancelled | HoldExpired, Confirmed | HoldExpired | AlreadyCancelled)


class PostgresTransitions:
    """`ports.Transitions` on PostgreSQL.

    Args:
        unit_timeout_seconds: see `decided`.
    """

    def __init__(self, engine: AsyncEngine, *, unit_timeout_seconds: float) -> None:
        self._engine = engine
        self._unit_timeout_seconds = unit_timeout_seconds

    async def cancel(self, claim_id: str, entry: AuditEntry) -> Cancelled | HoldExpired | UnknownClaim:
        answer: Cancelled | HoldExpired | UnknownClaim
        answer = await self._change(claim_id, _CANCEL, audited(entry), _cancelled)
        return answer

    async def confirm(
        self, claim_id: str, once: Once | None = None
    ) -> Confirmed | HoldExpired | AlreadyCancelled | UnknownClaim | Replayed | KeyReused:
        answer: Confirmed | HoldExpired | AlreadyCancelled | UnknownClaim | Replayed | KeyReused
        answer = await self._change(claim_id, _CONFIRM, {}, _confirmed, once)
        return answer

    async def _change(
        self,
        claim_id: str,
        statement: str,
        parameters: dict[str, Any],
        became: Callable[[Claim], _T],
        once: Once | None = None,
    ) -> Any:
        async def ask(unit: UnitOfWork) -> Any:
            return await (await unit.driver.execute(_COUPON_OF, {"id": claim_id})).fetchone()

        # A claim never changes its coupon.
        found = await read(self._engine, self._unit_timeout_seconds, ask)
        if found is None:
            return UnknownClaim()
        asked = {"coupon_name": found[0], "id": claim_id}
        coupons = {"coupon_names": [found[0]]}

        async def decide(driver: Driver, in_doubt: bool) -> _T | UnknownClaim | Replayed | KeyReused:
            async with driver.pipeline():
                await driver.execute("BEGIN", prepare=False)
                await driver.execute(LOCK_COUPONS, coupons)
                kept = await look_up(driver, once)
                await driver.execute(SETTLE_HOLDS, coupons)
                await driver.execute(statement, parameters | asked)
                await driver.execute(RECKON_PLAINNESS, coupons)
                after = await driver.execute(_READ, asked)
                if once is None:
                    await driver.execute("COMMIT", prepare=False)
            row = await after.fetchone()
            answer = UnknownClaim() if row is None else became(claim_of(*row))
            return answer if once is None else await concluded(driver, once, kept, answer, in_doubt)

        return await decided(self._engine, self._unit_timeout_seconds, decide)


def _cancelled(claim: Claim) -> Cancelled | HoldExpired:
    return HoldExpired(claim) if claim.state is ClaimState.EXPIRED else Cancelled(claim)


def _confirmed(claim: Claim) -> Confirmed | HoldExpired | AlreadyCancelled:
    if claim.state is ClaimState.CANCELLED:
        return AlreadyCancelled(claim)
    return HoldExpired(claim) if claim.state is ClaimState.EXPIRED else Confirmed(claim)


def claim_of(
    id: str,  # noqa: A002 - the column's name
    coupon_name: str,
    user_id: str,
    state: str,
    claimed_at: datetime,
    held_until: datetime | None,
    ended_at: datetime | None,
) -> Claim:
    """A claim as its row has it. A unit that is held is `active` there, because it is taken."""
    is_held = state == "active" and held_until is not None
    return Claim(
        id,
        coupon_name,
        user_id,
        ClaimState.HELD if is_held else ClaimState(state),
        claimed_at,
        expires_at=held_until if is_held else None,
        ended_at=ended_at,
    )
