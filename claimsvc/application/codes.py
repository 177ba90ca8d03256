"""Codes of coupons: adding them, looking them up, and redeeming them."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime

from claimsvc.application.permissions import require
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
    once: IdempotencyKey | None = None,
    request_id: str | None = None,
) -> CodesAdded | RowsRefused | UnknownCoupon | Replayed | KeyReused:
    """Add codes to a coupon.

    Args:
        atomic: all of them or none; else those that can be added.

    Raises:
        PermissionDeniedError: the caller may not.
        UnavailableError: the database does not answer in time.
    """
    require(caller, Scope.CODES_WRITE)
    entry = AuditEntry(caller.actor, "codes.add", "coupon", coupon_name, request_id=request_id)
    return await codes.add(coupon_name, rows, entry, atomic=atomic, once=once)


async def generate(
    codes: Codes,
    caller: Caller,
    coupon_name: str,
    count: int,
    pattern: str,
    expires_at: datetime | None,
    *,
    once: IdempotencyKey | None = None,
    request_id: str | None = None,
) -> CodesAdded | PatternTooSmall | CodeExpired | UnknownCoupon | Replayed | KeyReused:
    """Make `count` codes at random by a pattern, and add them. Raises as `add`."""
    require(caller, Scope.CODES_WRITE)
    entry = AuditEntry(caller.actor, "codes.generate", "coupon", coupon_name, request_id=request_id)
    return await codes.generate(coupon_name, count, pattern, expires_at, entry, once)


async def redeem(
    codes: Codes, caller: Caller, code: str, *, once: IdempotencyKey | None = None, request_id: str | None = None
) -> Redeemed | AlreadyRedeemed | CodeExpired | CodeNotClaimed | UnknownCode | Replayed | KeyReused:
    """Use a code, once. Raises as `add`."""
    require(caller, Scope.CODES_REDEEM)
    code = normalized(code)
    return await codes.redeem(code, AuditEntry(caller.actor, "code.redeem", "code", code, request_id=request_id), once)


async def get(codes: Codes, caller: Caller, code: str) -> Code | UnknownCode:
    """Look a code up. Raises as `add`."""
    require(caller, Scope.CODES_READ)
    return await codes.code(normalized(code)) or UnknownCode()
