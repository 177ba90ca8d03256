"""Redeeming, reading and counting codes. How claims take them is in `claiming/code_pool.py`."""

from typing import Any
from uuid import uuid4

from claimsvc.domain import (
    AlreadyRedeemed,
    AuditEntry,
    Code,
    CodeCounts,
    CodeExpired,
    CodeNotClaimed,
    CodeState,
    IdempotencyKey,
    KeyReused,
    NotYourClaim,
    Redeemed,
    Replayed,
    UnknownCode,
)
from claimsvc.postgres.audit import insert_entry, parameters_of
from claimsvc.postgres.claiming.code_pool import SETTLE_CODES
from claimsvc.postgres.claiming.fast_path import LOCK_COUPONS
from claimsvc.postgres.code_additions import CodeAdditions
from claimsvc.postgres.connections import Driver
from claimsvc.postgres.idempotency import concluded, look_up

_REDEEM = f"""
WITH redeemed AS (
    UPDATE codes SET redeemed_at = clock_timestamp(), redemption_id = %(redemption_id)s::uuid
    FROM user_claims AS claim
    WHERE codes.coupon_name = (SELECT coupon_name FROM code_names WHERE code = %(code)s) AND codes.code = %(code)s
        AND redeemed_at IS NULL AND voided_at IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp())
        AND claim.coupon_name = codes.coupon_name AND claim.id = codes.claim_id
        AND claim.state = 'active' AND claim.held_until IS NULL
        AND (%(user_id)s::text IS NULL OR claim.user_id = %(user_id)s::text)
    RETURNING 1
)
{insert_entry("redeemed")}
"""  # noqa: S608 - of constants
_READ = """
SELECT code.code, code.coupon_name, code.claim_id::text, code.expires_at, code.redeemed_at,
    code.redemption_id::text, code.voided_at IS NOT NULL, code.expires_at <= clock_timestamp(),
    claim.held_until IS NOT NULL AND claim.state = 'active', claim.user_id, campaign.type
FROM code_names AS name
JOIN codes AS code ON code.coupon_name = name.coupon_name AND code.code = name.code
LEFT JOIN user_claims AS claim ON claim.id = code.claim_id AND claim.coupon_name = code.coupon_name
LEFT JOIN campaigns AS campaign ON campaign.coupon_name = code.coupon_name
WHERE name.code = %(code)s
"""
_COUNT = """
SELECT count(*), count(claim_id) FILTER (WHERE voided_at IS NULL), count(redeemed_at), count(voided_at)
FROM campaigns JOIN codes ON codes.coupon_name = campaigns.coupon_name
WHERE has_codes AND type IS NOT DISTINCT FROM %(type)s
"""
_TYPES = "SELECT DISTINCT type FROM campaigns WHERE has_codes"
_DUE = """
SELECT DISTINCT campaigns.coupon_name, type FROM campaigns JOIN codes ON codes.coupon_name = campaigns.coupon_name
WHERE has_codes AND claim_id IS NULL AND voided_at IS NULL AND expires_at <= now()
LIMIT 100
"""


class PostgresCodes(CodeAdditions):
    """`ports.Codes` on PostgreSQL.

    Args:
        database: where statements run.
        reads: where codes are counted; `database` if None.
        changed: see `CodesChanged`.
    """

    async def redeem(
        self, code: str, entry: AuditEntry, idempotency_key: IdempotencyKey | None = None, *, user_id: str | None = None
    ) -> Redeemed | AlreadyRedeemed | CodeExpired | CodeNotClaimed | NotYourClaim | UnknownCode | Replayed | KeyReused:
        redemption_id = str(uuid4())
        parameters = {**parameters_of(entry), "code": code, "redemption_id": redemption_id, "user_id": user_id}
        types: set[str | None] = set()

        async def work(
            driver: Driver, in_doubt: bool
        ) -> (
            Redeemed
            | AlreadyRedeemed
            | CodeExpired
            | CodeNotClaimed
            | NotYourClaim
            | UnknownCode
            | Replayed
            | KeyReused
        ):
            async with driver.pipeline():
                await driver.execute("BEGIN", prepare=False)
                stored = await look_up(driver, idempotency_key)
                await driver.execute(_REDEEM, parameters)
                read = await driver.execute(_READ, parameters)
                if idempotency_key is None:
                    await driver.execute("COMMIT", prepare=False)
            row = await read.fetchone()
            answer = _redeemed(row, redemption_id, user_id)
            if row is not None and isinstance(answer, Redeemed):
                types.add(row[-1])
            return (
                answer
                if idempotency_key is None
                else await concluded(driver, idempotency_key, stored, answer, in_doubt)
            )

        answer = await self._database.run_transaction(work)
        self._changed(types)
        return answer

    async def code(self, code: str) -> Code | None:
        rows = await self._database.fetch(_READ, {"code": code})
        return _code(rows[0]) if rows else None

    async def count(self, coupon_type: str | None) -> CodeCounts:
        [row] = await self._reads.fetch(_COUNT, {"type": coupon_type})
        return CodeCounts(*row)

    async def types(self) -> list[str | None]:
        return [coupon_type for (coupon_type,) in await self._reads.fetch(_TYPES, {})]

    async def expire_due(self) -> int:
        due = await self._database.fetch(_DUE, {})
        if not due:
            return 0
        coupons = {"coupon_names": sorted(coupon_name for coupon_name, _ in due)}

        async def work(driver: Driver, in_doubt: bool) -> int:
            async with driver.pipeline():
                await driver.execute("BEGIN", prepare=False)
                await driver.execute(LOCK_COUPONS, coupons)
                settled = await driver.execute(SETTLE_CODES, coupons)
                await driver.execute("COMMIT", prepare=False)
            [(count, _)] = await settled.fetchall()
            return int(count)

        count = await self._database.run_transaction(work)
        self._changed({coupon_type for _, coupon_type in due})
        return count


def _redeemed(
    row: tuple[Any, ...] | None, redemption_id: str, user_id: str | None
) -> Redeemed | AlreadyRedeemed | CodeExpired | CodeNotClaimed | NotYourClaim | UnknownCode:
    """Return the outcome of a redemption, from the row that `_READ` found after it."""
    if row is None:
        return UnknownCode()
    redeemed_by, has_expired, claimant = row[5], row[7], row[9]
    # Before the code's state, which is not the business of whoever does not have it.
    if user_id is not None and claimant is not None and claimant != user_id:
        return NotYourClaim()
    if redeemed_by is not None:
        return Redeemed(_code(row)) if redeemed_by == redemption_id else AlreadyRedeemed()
    return CodeExpired() if has_expired else CodeNotClaimed()


def _code(row: tuple[Any, ...]) -> Code:
    code, coupon_name, claim_id, expires_at, redeemed_at, _, is_voided, _, is_held, _, _ = row
    if redeemed_at is not None:
        state = CodeState.REDEEMED
    elif is_voided:
        state = CodeState.VOIDED
    elif claim_id is None:
        state = CodeState.FREE
    else:
        state = CodeState.HELD if is_held else CodeState.CLAIMED
    return Code(code, coupon_name, state, claim_id, expires_at, redeemed_at)
