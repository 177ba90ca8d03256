"""Reading, confirming and cancelling claims.

A change first reads the claim's coupon. One transaction follows, of one round trip, or of two if its answer is stored
under an idempotency key. It locks the coupon's row, as claims do, but does not take the Redlock: on a busy coupon,
cancelling a claim would then wait behind all new claims.
"""

from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Any, TypeVar

from claimsvc.domain import (
    AlreadyCancelled,
    AlreadyRedeemed,
    AuditEntry,
    Cancelled,
    Claim,
    ClaimPosition,
    ClaimState,
    Confirmed,
    HoldExpired,
    IdempotencyKey,
    KeyReused,
    Replayed,
    UnknownClaim,
    UnknownCoupon,
    UserClaim,
)
from claimsvc.domain.code_generation import make_codes
from claimsvc.postgres.audit import insert_entry_of_claims, parameters_of
from claimsvc.postgres.claiming.code_pool import CANCEL, SETTLE_CODES
from claimsvc.postgres.claiming.fast_path_window import UPDATE_PLAIN_UNTIL
from claimsvc.postgres.claiming.fence import LOCK_COUPONS
from claimsvc.postgres.claiming.holds import SETTLE_HOLD, replace_dead_codes
from claimsvc.postgres.claiming.waiting_list import serve_waiting_list
from claimsvc.postgres.code_changes import COUNTED_TYPES, CodeChanges
from claimsvc.postgres.code_rows import CODE_TERMS, terms_of
from claimsvc.postgres.connections import Driver
from claimsvc.postgres.coupon_rows import coupon_exists
from claimsvc.postgres.database import Database
from claimsvc.postgres.idempotency import concluded, look_up

_SELECT = f"""
SELECT claim.id::text, claim.coupon_name, user_id, state, claimed_at, held_until, ended_at, code.code, {CODE_TERMS}
FROM user_claims AS claim
LEFT JOIN codes AS code ON code.coupon_name = claim.coupon_name AND code.claim_id = claim.id
"""  # noqa: S608 - of constants
_CLAIM = f"{_SELECT} WHERE claim.id = %(id)s"
_CLAIM_OF_COUPON = f"{_SELECT} WHERE claim.coupon_name = %(coupon_name)s AND claim.id = %(id)s"
_CLAIMS = f"""
SELECT claim.id::text, claim.coupon_name, user_id, state, claimed_at, held_until, ended_at, code.code, {CODE_TERMS}
FROM (
    SELECT id, coupon_name, user_id, state, claimed_at, held_until, ended_at FROM user_claims
    WHERE coupon_name = %(coupon_name)s AND state = 'active'
        AND (claimed_at, id) > (%(after_at)s::timestamptz, %(after_id)s::uuid)
    ORDER BY claimed_at, id
    LIMIT %(limit)s
) AS claim
LEFT JOIN codes AS code ON code.coupon_name = claim.coupon_name AND code.claim_id = claim.id
ORDER BY claim.claimed_at, claim.id
"""  # noqa: S608 - of constants
_BEFORE_EVERY_CLAIM = {"after_at": "-infinity", "after_id": "00000000-0000-0000-0000-000000000000"}
# There is no index by user, which every claim would have to maintain (docs/decisions/0046): the user is looked up in
# each coupon, in the index of active claims and in that of ended ones. LIMIT, which is never reached, keeps the planner
# at index look-ups while the table is small; see `fast_path`.
_CLAIMS_OF_USER = f"""
WITH claim AS MATERIALIZED (
    SELECT found.*
    FROM coupons AS coupon CROSS JOIN LATERAL (
        (
            SELECT id, coupon_name, user_id, state, claimed_at, held_until, ended_at
            FROM user_claims
            WHERE %(wants_current)s AND coupon_name = coupon.name AND user_id = %(user_id)s AND state = 'active'
            LIMIT 1000
        )
        UNION ALL
        (
            SELECT id, coupon_name, user_id, state, claimed_at, held_until, ended_at
            FROM user_claims
            WHERE %(wants_ended)s AND coupon_name = coupon.name AND user_id = %(user_id)s AND state <> 'active'
        )
    ) AS found
    WHERE (found.claimed_at, found.id) < (%(before_at)s::timestamptz, %(before_id)s::uuid)
        AND CASE WHEN found.state = 'active' AND found.held_until IS NOT NULL THEN 'held' ELSE found.state END
            = ANY (%(states)s)
    ORDER BY found.claimed_at DESC, found.id DESC
    LIMIT %(limit)s
)
SELECT claim.id::text, claim.coupon_name, claim.user_id, claim.state, claim.claimed_at, claim.held_until,
    claim.ended_at, code.code, {CODE_TERMS}, campaign.type, campaign.benefit
FROM claim
LEFT JOIN codes AS code ON code.coupon_name = claim.coupon_name AND code.claim_id = claim.id
LEFT JOIN campaigns AS campaign ON campaign.coupon_name = claim.coupon_name
ORDER BY claim.claimed_at DESC, claim.id DESC
"""  # noqa: S608 - of constants
_AFTER_EVERY_CLAIM = {"before_at": "infinity", "before_id": "ffffffff-ffff-ffff-ffff-ffffffffffff"}
_CURRENT = frozenset({ClaimState.ACTIVE, ClaimState.HELD})
_COUPON_OF = f"""
SELECT claim.coupon_name, code_pattern, coalesce(has_codes, false), {COUNTED_TYPES},
    code.expires_at IS NOT NULL
FROM user_claims AS claim
LEFT JOIN campaigns ON campaigns.coupon_name = claim.coupon_name
LEFT JOIN codes AS code ON code.coupon_name = claim.coupon_name AND code.claim_id = claim.id
WHERE claim.id = %(id)s
"""  # noqa: S608 - of constants
# At least one of them is unused almost certainly, even if other coupons use most codes of the pattern.
_SPARE_CODES = 64

_CONFIRM = f"""
WITH confirmed AS (
    UPDATE user_claims SET held_until = NULL
    WHERE coupon_name = %(coupon_name)s AND id = %(id)s AND state = 'active' AND held_until > now()
    RETURNING id, coupon_name
)
{insert_entry_of_claims("confirmed", "claim.confirm", actor="%(actor)s", request_id="%(request_id)s")}
"""  # noqa: S608 - of constants


_T = TypeVar("_T", Cancelled | HoldExpired | AlreadyRedeemed, Confirmed | HoldExpired | AlreadyCancelled)


class PostgresClaims:
    """`ports.ClaimRecords` and `ports.Transitions` on PostgreSQL.

    Args:
        database: where statements run.
        reads: where lists are read; `database` if None.
        changes: told of each change to codes.
    """

    def __init__(self, database: Database, *, reads: Database | None = None, changes: CodeChanges) -> None:
        self._database = database
        self._reads = reads or database
        self._changes = changes

    async def claim(self, claim_id: str) -> Claim | None:
        rows = await self._database.fetch(_CLAIM, {"id": claim_id})
        return claim_of(*rows[0]) if rows else None

    async def claims(self, coupon_name: str, *, after: ClaimPosition | None, limit: int) -> list[Claim] | UnknownCoupon:
        position = {"after_at": after.claimed_at, "after_id": after.id} if after is not None else _BEFORE_EVERY_CLAIM
        rows = await self._reads.fetch(_CLAIMS, {"coupon_name": coupon_name, "limit": limit, **position})
        if not rows and not await coupon_exists(self._reads, coupon_name):
            return UnknownCoupon()
        return [claim_of(*row) for row in rows]

    async def claims_of_user(
        self, user_id: str, *, states: Collection[ClaimState], before: ClaimPosition | None, limit: int
    ) -> list[UserClaim]:
        position = {"before_at": before.claimed_at, "before_id": before.id} if before is not None else {}
        wanted = {"user_id": user_id, "states": [state.value for state in states], "limit": limit}
        wanted |= {"wants_current": not _CURRENT.isdisjoint(states), "wants_ended": not _CURRENT.issuperset(states)}
        rows = await self._reads.fetch(_CLAIMS_OF_USER, {**wanted, **_AFTER_EVERY_CLAIM, **position})
        return [UserClaim(claim_of(*columns), coupon_type, benefit) for *columns, coupon_type, benefit in rows]

    async def cancel(
        self, claim_id: str, entry: AuditEntry
    ) -> Cancelled | HoldExpired | AlreadyRedeemed | UnknownClaim:
        answer: Cancelled | HoldExpired | AlreadyRedeemed | UnknownClaim
        answer = await self._change(claim_id, CANCEL, parameters_of(entry), _cancelled)
        return answer

    async def confirm(
        self,
        claim_id: str,
        idempotency_key: IdempotencyKey | None = None,
        *,
        actor: str = "claimant",
        request_id: str | None = None,
    ) -> Confirmed | HoldExpired | AlreadyCancelled | UnknownClaim | Replayed | KeyReused:
        answer: Confirmed | HoldExpired | AlreadyCancelled | UnknownClaim | Replayed | KeyReused
        by = {"actor": actor, "request_id": request_id}
        answer = await self._change(claim_id, _CONFIRM, by, _confirmed, idempotency_key)
        return answer

    async def _change(
        self,
        claim_id: str,
        statement: str,
        parameters: dict[str, Any],
        answer_of: Callable[[Claim], _T],
        idempotency_key: IdempotencyKey | None = None,
    ) -> Any:
        # The coupon of a claim never changes, so it can be read before the transaction. Its code changes only if it can
        # expire.
        found = await self._database.fetch(_COUPON_OF, {"id": claim_id})
        if not found:
            return UnknownClaim()
        [(coupon_name, code_pattern, has_codes, types, code_can_expire)] = found
        spare_codes = make_codes(code_pattern, _SPARE_CODES) if code_pattern else []
        claim = {"coupon_name": coupon_name, "id": claim_id, "spare_codes": spare_codes}
        coupons = {"coupon_names": [coupon_name]}

        async def work(driver: Driver, in_doubt: bool) -> _T | UnknownClaim | Replayed | KeyReused:
            async with driver.pipeline():
                await driver.execute("BEGIN", prepare=False)
                await driver.execute(LOCK_COUPONS, coupons)
                stored = await look_up(driver, idempotency_key)
                await driver.execute(SETTLE_HOLD, claim)
                await driver.execute(SETTLE_CODES, coupons)
                if code_can_expire and statement is _CONFIRM:
                    await replace_dead_codes(driver, [(coupon_name, claim_id)])
                await driver.execute(statement, parameters | claim)
                await serve_waiting_list(driver, coupons["coupon_names"])
                await driver.execute(UPDATE_PLAIN_UNTIL, coupons)
                if has_codes:
                    await self._changes.mark(driver, [coupon_name])
                after = await driver.execute(_CLAIM_OF_COUPON, claim)
                if idempotency_key is None:
                    await driver.execute("COMMIT", prepare=False)
            row = await after.fetchone()
            answer = UnknownClaim() if row is None else answer_of(claim_of(*row))
            return (
                answer
                if idempotency_key is None
                else await concluded(driver, idempotency_key, stored, answer, in_doubt)
            )

        answer = await self._database.run_transaction(work)
        if has_codes:
            self._changes.committed(types)
        return answer


def _cancelled(claim: Claim) -> Cancelled | HoldExpired | AlreadyRedeemed:
    if claim.state is ClaimState.ACTIVE:
        return AlreadyRedeemed()
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
    code: str | None = None,
    terms: Mapping[str, Any] | None = None,
) -> Claim:
    """Return the claim of a row. A held claim has the state `active` there, because it takes a unit."""
    is_held = state == "active" and held_until is not None
    return Claim(
        id,
        coupon_name,
        user_id,
        ClaimState.HELD if is_held else ClaimState(state),
        claimed_at,
        expires_at=held_until if is_held else None,
        ended_at=ended_at,
        code=None if is_held else code,
        terms=None if is_held else terms_of(terms),
    )
