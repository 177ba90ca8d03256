"""Every answer that can be kept under a key, by the name that it is kept under."""

from collections.abc import Mapping
from types import MappingProxyType

from claimsvc.domain.campaigns import AmountBelowClaimed, CouponDetail, CouponExists, PeriodIsEmpty
from claimsvc.domain.claims import (
    OUTCOME_NAMES,
    AlreadyCancelled,
    Cancelled,
    Confirmed,
    Coupon,
    HoldExpired,
    KeyReused,
    Outcome,
    Replayed,
    UnknownClaim,
)
from claimsvc.domain.codes import (
    AlreadyRedeemed,
    AmountIsCodes,
    CodeExpired,
    CodeNotClaimed,
    CodesAdded,
    PatternTooSmall,
    Redeemed,
    RowsRefused,
    UnknownCode,
)
from claimsvc.domain.eligibility import Eligibility

StoredAnswer = (
    Outcome
    | Confirmed
    | Cancelled
    | HoldExpired
    | AlreadyCancelled
    | UnknownClaim
    | Coupon
    | CouponExists
    | CouponDetail
    | AmountBelowClaimed
    | PeriodIsEmpty
    | AmountIsCodes
    | CodesAdded
    | RowsRefused
    | PatternTooSmall
    | Redeemed
    | AlreadyRedeemed
    | CodeExpired
    | CodeNotClaimed
    | UnknownCode
    | Eligibility
)

ANSWER_NAMES: Mapping[type[StoredAnswer], str] = MappingProxyType(
    {
        # What a repetition is told is never kept itself.
        **{kind: name for kind, name in OUTCOME_NAMES.items() if kind not in (Replayed, KeyReused)},
        Confirmed: "confirmed",
        Cancelled: "cancelled",
        HoldExpired: "hold-expired",
        AlreadyCancelled: "already-cancelled",
        UnknownClaim: "unknown-claim",
        Coupon: "coupon-created",
        CouponExists: "coupon-exists",
        CouponDetail: "coupon-changed",
        AmountBelowClaimed: "amount-below-claimed",
        PeriodIsEmpty: "empty-period",
        AmountIsCodes: "amount-is-codes",
        CodesAdded: "codes-added",
        RowsRefused: "rows-refused",
        PatternTooSmall: "pattern-too-small",
        Redeemed: "redeemed",
        AlreadyRedeemed: "already-redeemed",
        CodeExpired: "code-expired",
        CodeNotClaimed: "code-not-claimed",
        UnknownCode: "unknown-code",
        Eligibility: "eligibility",
    }
)
"""No name may ever mean another: answers that an older version has kept are read under it."""
