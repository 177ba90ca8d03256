"""Redeeming claims and codes, and taking a redemption back.

Each redemption is a row of `redemptions`, whose key is the claim and the redemption's number. Redemptions of a claim
are ordered by the row lock of its code, which cancelling the claim takes too; or, without a code, by that of its
coupon.

An instance of an older version records a redemption only in `codes`, as the first one. The next redemption adds its
row.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from uuid import uuid4

import psycopg
from psycopg.rows import dict_row

from claimsvc.domain import (
    AlreadyRedeemed,
    AuditEntry,
    Claim,
    ClaimEnded,
    ClaimNotConfirmed,
    ClaimRedeemed,
    ClaimState,
    ClaimUnredeemed,
    CodeCheck,
    CodeExpired,
    CodeNotClaimed,
    CodeUnredeemed,
    HoldExpired,
    IdempotencyKey,
    KeyReused,
    NotRedeemed,
    NotYourClaim,
    Outcome,
    Redeemed,
    Replayed,
    UnknownClaim,
    UnknownCode,
)
from claimsvc.postgres.audit import parameters_of
from claimsvc.postgres.claiming.fast_path_window import UPDATE_PLAIN_UNTIL
from claimsvc.postgres.claiming.fence import LOCK_COUPONS
from claimsvc.postgres.claiming.holds import SETTLE_HOLD
from claimsvc.postgres.claiming.waiting_list import serve_waiting_list
from claimsvc.postgres.claims import claim_of
from claimsvc.postgres.code_changes import CodeChanges
from claimsvc.postgres.code_rows import READ_CODE, code_of, find_code, refusal_of
from claimsvc.postgres.connections import Driver
from claimsvc.postgres.database import Database
from claimsvc.postgres.idempotency import Rows, concluded, look_up
from claimsvc.postgres.redemption_statements import OF_CLAIM, OF_CODE, Statements
from claimsvc.postgres.transactions import RestartTransactionError

_COUPON_OF = "SELECT coupon_name FROM user_claims WHERE id = %(claim_id)s"
_CLAIM_COLUMNS = ("id", "coupon_name", "user_id", "state", "claimed_at", "held_until", "ended_at", "code", "terms")

_Row = Mapping[str, Any]
_T = TypeVar("_T", bound=Outcome)


@dataclass(frozen=True, slots=True)
class _Subject:
    """What is redeemed: a code, or the claim of an id. The other of the two is None."""

    coupon_name: str
    code: str | None = None
    claim_id: str | None = None
    user_id: str | None = None

    @property
    def statements(self) -> Statements:
        return OF_CLAIM if self.code is None else OF_CODE

    def parameters(self, redemption_id: str | None) -> dict[str, Any]:
        return {
            "coupon_name": self.coupon_name,
            "code": self.code,
            "claim_id": self.claim_id,
            "user_id": self.user_id,
            "redemption_id": redemption_id,
        }


class CodeRedemptions:
    """The methods of `ports.Codes` that redeem claims and codes."""

    _database: Database
    _changes: CodeChanges

    async def redeem(
        self, code: str, entry: AuditEntry, idempotency_key: IdempotencyKey | None = None, *, user_id: str | None = None
    ) -> Redeemed | AlreadyRedeemed | CodeExpired | CodeNotClaimed | NotYourClaim | UnknownCode | Replayed | KeyReused:
        found = await find_code(self._database, code)
        if found is None:
            return UnknownCode()
        subject = _Subject(*found, user_id=user_id)

        def answer_of(
            row: _Row | None,
        ) -> Redeemed | AlreadyRedeemed | CodeExpired | CodeNotClaimed | NotYourClaim | UnknownCode:
            if row is None:
                return UnknownCode()
            return Redeemed(code_of(row)) if row["is_this"] else refusal_of(row, user_id) or CodeNotClaimed()

        return await self._redeem(subject, replace(entry, subject=found[1]), idempotency_key, answer_of)

    async def redeem_claim(
        self, claim_id: str, entry: AuditEntry, idempotency_key: IdempotencyKey | None = None
    ) -> (
        ClaimRedeemed
        | AlreadyRedeemed
        | CodeExpired
        | ClaimNotConfirmed
        | ClaimEnded
        | HoldExpired
        | UnknownClaim
        | Replayed
        | KeyReused
    ):
        subject = await self._claim(claim_id)
        if subject is None:
            return UnknownClaim()
        return await self._redeem(subject, _about(entry, subject), idempotency_key, _claim_redeemed)

    async def _redeem(
        self,
        subject: _Subject,
        entry: AuditEntry,
        idempotency_key: IdempotencyKey | None,
        answer_of: Callable[[_Row | None], _T],
    ) -> _T | Replayed | KeyReused:
        parameters = parameters_of(entry) | subject.parameters(str(uuid4()))
        types: set[str | None] = set()

        async def work(driver: Driver, in_doubt: bool) -> _T | Replayed | KeyReused:
            async with driver.pipeline():
                stored = await _begin(driver, subject, parameters, idempotency_key)
                await driver.execute(subject.statements.redeem.encode(), parameters)
                await self._changes.mark(driver, [subject.coupon_name])
                read = await _read(driver, subject, parameters)
                if idempotency_key is None:
                    await driver.execute("COMMIT", prepare=False)
            return await _concluded(read, types, answer_of, driver, idempotency_key, stored, in_doubt)

        answer = await self._run(work)
        self._changes.committed(types)
        return answer

    async def unredeem(
        self, code: str, entry: AuditEntry, idempotency_key: IdempotencyKey | None = None
    ) -> CodeUnredeemed | NotRedeemed | UnknownCode | Replayed | KeyReused:
        found = await find_code(self._database, code)
        if found is None:
            return UnknownCode()

        def answer_of(row: _Row | None) -> CodeUnredeemed | UnknownCode:
            return UnknownCode() if row is None else CodeUnredeemed(code_of(row))

        return await self._unredeem(_Subject(*found), replace(entry, subject=found[1]), idempotency_key, answer_of)

    async def unredeem_claim(
        self, claim_id: str, entry: AuditEntry, idempotency_key: IdempotencyKey | None = None
    ) -> ClaimUnredeemed | NotRedeemed | UnknownClaim | Replayed | KeyReused:
        subject = await self._claim(claim_id)
        if subject is None:
            return UnknownClaim()
        return await self._unredeem(subject, _about(entry, subject), idempotency_key, _claim_unredeemed)

    async def _unredeem(
        self,
        subject: _Subject,
        entry: AuditEntry,
        idempotency_key: IdempotencyKey | None,
        answer_of: Callable[[_Row | None], _T],
    ) -> _T | NotRedeemed | Replayed | KeyReused:
        # After a commit in doubt, only the redemption that was chosen before is taken back.
        chosen: list[str] = []
        types: set[str | None] = set()

        async def work(driver: Driver, in_doubt: bool) -> _T | NotRedeemed | Replayed | KeyReused:
            if not in_doubt:
                chosen.clear()
            parameters = parameters_of(entry) | subject.parameters(None)
            async with driver.pipeline():
                stored = await _begin(driver, subject, parameters, idempotency_key)
                last = await driver.execute(subject.statements.last.encode(), parameters)
            row = await last.fetchone()
            if not chosen:
                if row is None:
                    return await concluded(driver, idempotency_key, stored, NotRedeemed(), in_doubt)
                chosen.append(row[0])
            parameters["redemption_id"] = chosen[0]
            async with driver.pipeline():
                await driver.execute(subject.statements.take_back.encode(), parameters)
                await self._changes.mark(driver, [subject.coupon_name])
                read = await _read(driver, subject, parameters)
            return await _concluded(read, types, answer_of, driver, idempotency_key, stored, in_doubt, commit=True)

        answer = await self._run(work)
        self._changes.committed(types)
        return answer

    async def check(self, code: str, user_id: str | None) -> CodeCheck | UnknownCode:
        found = await find_code(self._database, code)
        if found is None:
            return UnknownCode()
        rows = await self._database.fetch_dicts(READ_CODE, _Subject(*found).parameters(None))
        return CodeCheck(code_of(rows[0]), refusal_of(rows[0], user_id)) if rows else UnknownCode()

    async def _claim(self, claim_id: str) -> _Subject | None:
        rows = await self._database.fetch(_COUPON_OF, {"claim_id": claim_id})
        return _Subject(rows[0][0], claim_id=claim_id) if rows else None

    async def _run(self, work: Callable[[Driver, bool], Awaitable[_T]]) -> _T:
        async def attempt(driver: Driver, in_doubt: bool) -> _T:
            try:
                return await work(driver, in_doubt)
            except psycopg.errors.DeadlockDetected as error:
                raise RestartTransactionError from error

        return await self._database.run_transaction(attempt)


async def _begin(
    driver: Driver, subject: _Subject, parameters: Mapping[str, Any], idempotency_key: IdempotencyKey | None
) -> Rows | None:
    """Begin the transaction, lock what orders redemptions, and return the stored answers. In a pipeline."""
    await driver.execute("BEGIN", prepare=False)
    if subject.code is None:
        coupons = {"coupon_names": [subject.coupon_name]}
        await driver.execute(LOCK_COUPONS, coupons)
        await driver.execute(SETTLE_HOLD, {"coupon_name": subject.coupon_name, "id": subject.claim_id})
        await serve_waiting_list(driver, coupons["coupon_names"])
        await driver.execute(UPDATE_PLAIN_UNTIL, coupons)
    await driver.execute(subject.statements.lock_code.encode(), parameters)
    stored = await look_up(driver, idempotency_key)
    await driver.execute(subject.statements.adopt.encode(), parameters)
    return stored


async def _read(driver: Driver, subject: _Subject, parameters: Mapping[str, Any]) -> Any:
    return await driver.cursor(row_factory=dict_row).execute(subject.statements.read.encode(), parameters)


async def _concluded(
    read: Any,
    types: set[str | None],
    answer_of: Callable[[_Row | None], _T],
    driver: Driver,
    idempotency_key: IdempotencyKey | None,
    stored: Rows | None,
    in_doubt: bool,
    *,
    commit: bool = False,
) -> _T | Replayed | KeyReused:
    """Return the answer of the row that was read last; with a key or `commit`, end the transaction."""
    row = await read.fetchone()
    if row is not None and row["has_codes"]:
        types.update({row["type"], *(row["lost_types"] or ())})
    if idempotency_key is None and not commit:
        return answer_of(row)
    return await concluded(driver, idempotency_key, stored, answer_of(row), in_doubt)


def _about(entry: AuditEntry, subject: _Subject) -> AuditEntry:
    return replace(entry, details={**entry.details, "coupon_name": subject.coupon_name})


def _claim_redeemed(
    row: _Row | None,
) -> ClaimRedeemed | AlreadyRedeemed | CodeExpired | ClaimNotConfirmed | ClaimEnded | HoldExpired | UnknownClaim:
    if row is None:
        return UnknownClaim()
    claim = _claim_of(row)
    if row["is_this"]:
        return ClaimRedeemed(claim, row["last_at"], row["redeemed_count"], row["uses"])
    if claim.state is ClaimState.CANCELLED:
        return ClaimEnded(claim)
    if claim.state is ClaimState.EXPIRED:
        return HoldExpired(claim)
    if claim.state is ClaimState.HELD:
        return ClaimNotConfirmed()
    return CodeExpired() if row["has_expired"] and row["redeemed_count"] < row["uses"] else AlreadyRedeemed()


def _claim_unredeemed(row: _Row | None) -> ClaimUnredeemed | UnknownClaim:
    if row is None:
        return UnknownClaim()
    return ClaimUnredeemed(_claim_of(row), row["last_at"], row["redeemed_count"], row["uses"])


def _claim_of(row: _Row) -> Claim:
    return claim_of(*(row[name] for name in _CLAIM_COLUMNS))
