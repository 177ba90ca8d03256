"""Outcomes of redeeming claims and codes, and of taking a redemption back."""

from dataclasses import dataclass
from datetime import datetime

from claimsvc.domain.claims import Claim
from claimsvc.domain.codes import Code
from claimsvc.domain.outcomes import Outcome, Refusal, outcome, refusal


@outcome("redeemed", uses_up=True)
@dataclass(frozen=True, slots=True)
class Redeemed(Outcome):
    """This request redeemed the code."""

    code: Code


@refusal(
    "already-redeemed",
    409,
    "Already redeemed",
    "The claim, or its code, was redeemed as often as it may be. A claim that was redeemed cannot be cancelled.",
    "Do not retry: the answer will stay the same.",
)
@dataclass(frozen=True, slots=True)
class AlreadyRedeemed(Refusal):
    """The claim, or its code, was redeemed as often as it may be; or it was redeemed, so it cannot be cancelled."""


@refusal(
    "code-expired",
    410,
    "The code has expired",
    "The code's `expires_at` has passed.",
    "Do not retry: the answer will stay the same.",
)
@dataclass(frozen=True, slots=True)
class CodeExpired(Refusal):
    """The code can no longer be redeemed."""


@refusal(
    "code-not-claimed",
    409,
    "No claim has the code",
    "No claim has this code: none was made or confirmed yet, or it was cancelled.",
    "Claim the coupon or confirm the claim, then retry.",
    is_stored=False,
)
@dataclass(frozen=True, slots=True)
class CodeNotClaimed(Refusal):
    """No confirmed claim has the code: it is free, held or voided."""


@refusal(
    "unknown-code",
    404,
    "Unknown code",
    "There is no such code, or several that differ from it by case alone.",
    "Check the code. Upper and lower case matter only if codes differ in nothing else.",
)
@dataclass(frozen=True, slots=True)
class UnknownCode(Refusal):
    """There is no such code."""


@outcome("claim-redeemed", uses_up=True)
@dataclass(frozen=True, slots=True)
class ClaimRedeemed(Outcome):
    """This request redeemed the claim.

    Args:
        claim: the claim.
        redeemed_at: when.
        redeemed_count: how often it was redeemed, this time included.
        uses: how often it may be redeemed.
    """

    claim: Claim
    redeemed_at: datetime
    redeemed_count: int
    uses: int


@outcome("code-unredeemed")
@dataclass(frozen=True, slots=True)
class CodeUnredeemed(Outcome):
    """This request took back the last redemption of the code."""

    code: Code


@outcome("claim-unredeemed")
@dataclass(frozen=True, slots=True)
class ClaimUnredeemed(Outcome):
    """This request took back the last redemption of the claim; the arguments are those of `ClaimRedeemed`.

    `redeemed_at` is the time of the redemption before it; None if there was none.
    """

    claim: Claim
    redeemed_at: datetime | None
    redeemed_count: int
    uses: int


@refusal(
    "not-redeemed",
    409,
    "Not redeemed",
    "The claim, or its code, is not redeemed, so there is no redemption to take back.",
    "Do not retry: the answer will stay the same.",
)
@dataclass(frozen=True, slots=True)
class NotRedeemed(Refusal):
    """There is no redemption to take back."""


@refusal(
    "claim-not-confirmed",
    409,
    "The claim is only held",
    "A held claim cannot be redeemed before it is confirmed.",
    "Confirm the claim, then retry.",
    is_stored=False,
)
@dataclass(frozen=True, slots=True)
class ClaimNotConfirmed(Refusal):
    """The claim is held, and not confirmed yet."""


@refusal(
    "claim-ended",
    410,
    "The claim has ended",
    "The claim was cancelled, so it cannot be redeemed.",
    "Do not retry: the answer will stay the same.",
)
@dataclass(frozen=True, slots=True)
class ClaimEnded(Refusal):
    """The claim was cancelled."""

    claim: Claim


@dataclass(frozen=True, slots=True)
class CodeCheck:
    """What redeeming a code would result in now.

    Args:
        code: the code.
        refusal: why it would be refused; None if it would be redeemed.
    """

    code: Code
    refusal: Refusal | None
