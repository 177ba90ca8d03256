"""Codes of coupons: adding, generating, reading and redeeming them."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime

from claimsvc.application.scopes import require
from claimsvc.domain import (
    AlreadyRedeemed,
    AuditEntry,
    Caller,
    Code,
    CodeCheck,
    CodeExpired,
    CodeNotClaimed,
    CodesAdded,
    CodeState,
    CodeUnredeemed,
    IdempotencyKey,
    KeyReused,
    NewCode,
    NotRedeemed,
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
    uses: int | None = None,
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
        uses: how often each of the codes may be redeemed; None if as often as the coupon says.
        key: the request's idempotency key.
        request_id: the request's id, for the audit.

    Raises:
        PermissionDeniedError: the caller lacks the scope.
        UnavailableError: the database does not answer in time.
    """
    require(caller, Scope.CODES_WRITE)
    entry = AuditEntry(caller.actor, "codes.add", "coupon", coupon_name, request_id=request_id)
    return await codes.add(coupon_name, rows, entry, atomic=atomic, uses=uses, idempotency_key=key)


async def generate(
    codes: Codes,
    caller: Caller,
    coupon_name: str,
    count: int,
    pattern: str,
    expires_at: datetime | None,
    *,
    uses: int | None = None,
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
        uses: see `add`.
        key: the request's idempotency key.
        request_id: the request's id, for the audit.
    """
    require(caller, Scope.CODES_WRITE)
    entry = AuditEntry(caller.actor, "codes.generate", "coupon", coupon_name, request_id=request_id)
    return await codes.generate(coupon_name, count, pattern, expires_at, entry, key, uses=uses)


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


async def unredeem(
    codes: Codes,
    caller: Caller,
    code: str,
    reason: str,
    *,
    key: IdempotencyKey | None = None,
    request_id: str | None = None,
) -> CodeUnredeemed | NotRedeemed | UnknownCode | Replayed | KeyReused:
    """Take back the last redemption of a code, because it fell through. Raises as `add`.

    Args:
        codes: stores the codes.
        caller: needs the scope `codes:redeem`.
        code: the code.
        reason: why, for the audit.
        key: the request's idempotency key.
        request_id: the request's id, for the audit.
    """
    require(caller, Scope.CODES_REDEEM)
    code = normalized(code)
    entry = AuditEntry(caller.actor, "code.unredeem", "code", code, reason=reason, request_id=request_id)
    return await codes.unredeem(code, entry, key)


async def check(
    codes: Codes, caller: Caller, code: str, user_id: str | None = None
) -> CodeCheck | UnknownCode | NotYourClaim:
    """Return what redeeming a code would result in, and change nothing. Raises as `add`.

    Args:
        codes: reads the code.
        caller: a user, or a caller with the scope `codes:redeem`. For a user, only the codes of their own claims exist,
            so that nobody finds codes by guessing.
        code: the code.
        user_id: whose code it must be; None for the caller's own, or for anybody's if the caller is no user.
    """
    if caller.user_id is None:
        require(caller, Scope.CODES_REDEEM)
        return await codes.check(normalized(code), user_id)
    if user_id not in (None, caller.user_id):
        return NotYourClaim()
    found = await codes.check(normalized(code), caller.user_id)
    if isinstance(found, CodeCheck) and (found.code.user_id != caller.user_id or found.code.state is CodeState.HELD):
        return UnknownCode()
    return found


async def of_coupon(
    codes: Codes, caller: Caller, coupon_name: str, *, after: str, limit: int
) -> list[Code] | UnknownCoupon:
    """List the codes of a coupon that follow `after`, in byte order. Raises as `add`.

    Args:
        codes: reads the codes.
        caller: needs the scope `codes:read`.
        coupon_name: the coupon.
        after: the code after which the list begins; empty for the first.
        limit: how many codes are returned at most.
    """
    require(caller, Scope.CODES_READ)
    return await codes.of_coupon(coupon_name, after=after, limit=limit)


async def get(codes: Codes, caller: Caller, code: str) -> Code | UnknownCode:
    """Read a code, as `ports.Codes.code` finds it. The caller needs the scope `codes:read`. Raises as `add`."""
    require(caller, Scope.CODES_READ)
    return await codes.code(normalized(code)) or UnknownCode()
