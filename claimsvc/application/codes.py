"""Codes of coupons: adding, generating, reading and redeeming them."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime

from claimsvc.application.scopes import require
from claimsvc.domain import (
    AlreadyRedeemed,
    AuditEntry,
    Caller,
    Code,
    CodeExpired,
    CodeNotClaimed,
    CodesAdded,
    IdempotencyKey,
    KeyReused,
    NewCode,
    NotYourClaim,
    PatternTooSmall,
    Redeemed,
    RefusedRow,
    Replayed,
    RowsRefused,
    Scope,
    UnknownCode,
    UnknownCoupon,
)
from claimsvc.domain.codes import normalized
from claimsvc.ports import Codes


async def add(
    codes: Codes,
    caller: Caller,
    coupon_name: str,
    rows: AsyncIterator[Sequence[NewCode | RefusedRow]],
    *,
    atomic: bool,
    key: IdempotencyKey | None = None,
    request_id: str | None = None,
) -> CodesAdded | RowsRefused | UnknownCoupon | Replayed | KeyReused:
    """Add codes to a coupon.

    Args:
        codes: stores the codes.
        caller: needs the scope `codes:write`.
        coupon_name: the coupon.
        rows: the rows, in batches.
        atomic: whether to add all rows or none; otherwise the valid rows are added.
        key: the request's idempotency key.
        request_id: the request's id, for the audit.

    Raises:
        PermissionDeniedError: the caller lacks the scope.
        UnavailableError: the database does not answer in time.
    """
    require(caller, Scope.CODES_WRITE)
    entry = AuditEntry(caller.actor, "codes.add", "coupon", coupon_name, request_id=request_id)
    return await codes.add(coupon_name, rows, entry, atomic=atomic, idempotency_key=key)


async def generate(
    codes: Codes,
    caller: Caller,
    coupon_name: str,
    count: int,
    pattern: str,
    expires_at: datetime | None,
    *,
    key: IdempotencyKey | None = None,
    request_id: str | None = None,
) -> CodesAdded | PatternTooSmall | CodeExpired | UnknownCoupon | Replayed | KeyReused:
    """Generate random codes and add them to a coupon. Raises as `add`.

    Args:
        codes: stores the codes.
        caller: needs the scope `codes:write`.
        coupon_name: the coupon.
        count: how many codes are generated.
        pattern: `A` becomes a random letter, `9` a digit and `가` a Hangul syllable; other characters stay.
        expires_at: until when the codes can be redeemed; None for ever.
        key: the request's idempotency key.
        request_id: the request's id, for the audit.
    """
    require(caller, Scope.CODES_WRITE)
    entry = AuditEntry(caller.actor, "codes.generate", "coupon", coupon_name, request_id=request_id)
    return await codes.generate(coupon_name, count, pattern, expires_at, entry, key)


async def redeem(
    codes: Codes,
    caller: Caller,
    code: str,
    *,
    user_id: str | None = None,
    key: IdempotencyKey | None = None,
    request_id: str | None = None,
) -> Redeemed | AlreadyRedeemed | CodeExpired | CodeNotClaimed | NotYourClaim | UnknownCode | Replayed | KeyReused:
    """Redeem a claimed code. Raises as `add`.

    Args:
        codes: stores the codes.
        caller: needs the scope `codes:redeem`.
        code: the code.
        user_id: if given, the outcome is `NotYourClaim` unless this user's claim has the code.
        key: the request's idempotency key.
        request_id: the request's id, for the audit.
    """
    require(caller, Scope.CODES_REDEEM)
    code = normalized(code)
    entry = AuditEntry(caller.actor, "code.redeem", "code", code, request_id=request_id)
    return await codes.redeem(code, entry, key, user_id=user_id)


async def get(codes: Codes, caller: Caller, code: str) -> Code | UnknownCode:
    """Read a code. The caller needs the scope `codes:read`. Raises as `add`."""
    require(caller, Scope.CODES_READ)
    return await codes.code(normalized(code)) or UnknownCode()
