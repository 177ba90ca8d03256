"""Unique codes: their format, reading them from files, and their outcomes; `code_generation` makes them."""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from claimsvc.domain.limits import COUPON_TYPE_PATTERN, MAX_NAME_LENGTH
from claimsvc.domain.outcomes import Outcome, Refusal, outcome, refusal
from claimsvc.domain.problems import RpcCode
from claimsvc.domain.times import parse_time

# Characters that every keyboard and printer has, and Hangul syllables. As with coupon names, not only dots.
CODE_PATTERN = r"^\.*[A-Za-z0-9_가-힣-][A-Za-z0-9._가-힣-]*$"
MAX_CODE_LENGTH = 64
MAX_ROWS = 200_000
MAX_GENERATED = 100_000
# Each of them is counted by itself.
MAX_CODE_TYPES = 100
_MOST_REFUSED_SHOWN = 1000

_IS_CODE = re.compile(CODE_PATTERN)
_IS_TYPE = re.compile(COUPON_TYPE_PATTERN)
# The characters that a decomposed Hangul syllable has at most.
_MOST_JAMO = 3


class CodeState(StrEnum):
    """The state of a code."""

    FREE = "free"
    # Reserved by a held claim; not shown to its user yet.
    HELD = "held"
    CLAIMED = "claimed"
    # As often as it may be.
    REDEEMED = "redeemed"
    # Its `expires_at` has passed before it was redeemed that often: it can no longer be redeemed.
    EXPIRED = "expired"
    # Its claim was cancelled, or it expired unclaimed: it is never given again.
    VOIDED = "voided"


@dataclass(frozen=True, slots=True)
class Code:
    """A code of a coupon.

    Args:
        claim_id: the claim that has it; None if no claim has.
        expires_at: when it can no longer be redeemed; None if it never expires.
        redeemed_at: when it was redeemed, for the last time if several times; None if it was not.
        uses: how often it may be redeemed.
        redeemed_count: how often it was redeemed.
        user_id: the user whose claim has it; None if no claim has.
        type: its own, or else that of its coupon; None if neither has one.
        benefit: what it is worth, in the form of the API's `Benefit`: its own, or else that of its coupon; None if that
            is not stated.
    """

    code: str
    coupon_name: str
    state: CodeState
    claim_id: str | None = None
    expires_at: datetime | None = None
    redeemed_at: datetime | None = None
    uses: int = 1
    redeemed_count: int = 0
    user_id: str | None = None
    type: str | None = None
    benefit: Mapping[str, Any] | None = field(default=None, hash=False)


@dataclass(frozen=True, slots=True)
class NewCode:
    """A code to add.

    Args:
        row: its row in the file, from 1.
        expires_at: when it can no longer be redeemed; None if it never expires.
        type: its own type; None if that of the coupon counts.
        benefit: what it is worth, in the form of the API's `Benefit`; None if that of the coupon counts.
    """

    row: int
    code: str
    expires_at: datetime | None = None
    type: str | None = None
    benefit: Mapping[str, Any] | None = field(default=None, hash=False)

    @property
    def has_terms(self) -> bool:
        """Whether it has a type or a benefit of its own."""
        return self.type is not None or self.benefit is not None


class RowReason(StrEnum):
    """Why a row of a file is refused."""

    BAD_ROW = "bad-row"
    BAD_CODE = "bad-code"
    BAD_EXPIRY = "bad-expiry"
    BAD_TYPE = "bad-type"
    BAD_BENEFIT = "bad-benefit"
    EXPIRED = "expired"
    DUPLICATE = "duplicate"
    EXISTS = "exists"
    COUPON_HAS_TYPE = "coupon-has-type"
    COUPON_HAS_BENEFIT = "coupon-has-benefit"
    TOO_MANY_TYPES = "too-many-types"


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A refused row; `code` is empty if the row has no well-formed code."""

    row: int
    code: str
    reason: RowReason


@dataclass(frozen=True, slots=True)
class CodeCounts:
    """The numbers of codes of a type: their own, or else that of their coupon.

    Args:
        uploaded: all that were ever added.
        claimed: those that belong to a claim, held claims included.
        redeemed: those of them that were redeemed, at least once.
        voided: those that are never given again. `uploaded - claimed - voided` are free.
    """

    uploaded: int = 0
    claimed: int = 0
    redeemed: int = 0
    voided: int = 0


@outcome("codes-added")
@dataclass(frozen=True, slots=True)
class CodesAdded(Outcome):
    """The number of codes added, and the first of the `refused_count` refused rows."""

    added: int
    refused: tuple[RefusedRow, ...] = ()
    refused_count: int = 0


@refusal(
    "rows-refused",
    422,
    "Some rows cannot be added",
    "Not every row can be added, so none was. `rejected` lists them with reasons: `bad-row`, `bad-code`, `bad-expiry`, "
    "`bad-type`, `bad-benefit`, `expired`, `duplicate` of a row before it, `exists` already, with this coupon or "
    "another; `coupon-has-type` or `coupon-has-benefit` if the row has one as well; or `too-many-types` if the codes "
    "of the coupon have 100 others.",
    "Correct these rows, or send `atomic=false` to add the others.",
)
@dataclass(frozen=True, slots=True)
class RowsRefused(Refusal):
    """Nothing was added, because some rows were refused: the first of the `refused_count` such rows."""

    refused: tuple[RefusedRow, ...]
    refused_count: int


@refusal(
    "pattern-too-small",
    409,
    "The pattern allows too few codes",
    "A pattern must allow at least 1000 times as many codes as the coupon would have of it, so that they cannot be "
    "guessed, and enough of its codes must be unused; nothing was added.",
    "Use a longer pattern.",
    rpc_code=RpcCode.INVALID_ARGUMENT,
)
@dataclass(frozen=True, slots=True)
class PatternTooSmall(Refusal):
    """The pattern allows too few codes for them to be hard to guess, or too few are unused; nothing was added."""


@refusal(
    "amount-is-codes",
    409,
    "The amount is the number of its codes",
    "The coupon has codes, so its amount is how many there are; nothing was changed.",
    "Add codes to raise it.",
)
@dataclass(frozen=True, slots=True)
class AmountIsCodes(Refusal):
    """The coupon has codes, so its amount is their number; nothing was changed."""


def normalized(code: str) -> str:
    """Return the code in NFC, as it is stored: some systems decompose Hangul syllables.

    What is too long for a code in any form stays as it is, because sorting many combining marks takes quadratic time.
    """
    if code.isascii() or len(code) > MAX_CODE_LENGTH * _MOST_JAMO:
        return code
    return unicodedata.normalize("NFC", code)


def new_code(row: int, code: object, expires_at: object) -> NewCode | RefusedRow:
    """Parse one row of a file.

    Args:
        row: its number in the file, from 1.
        code: its code.
        expires_at: an RFC 3339 date-time; empty or None if the code never expires.
    """
    if not isinstance(code, str):
        return RefusedRow(row, "", RowReason.BAD_CODE)
    code = normalized(code)
    if len(code) > MAX_CODE_LENGTH or not _IS_CODE.fullmatch(code):
        return RefusedRow(row, "", RowReason.BAD_CODE)
    if not expires_at and isinstance(expires_at, str | None):
        return NewCode(row, code)
    try:
        return NewCode(row, code, parse_time(expires_at if isinstance(expires_at, str) else ""))
    except ValueError:
        return RefusedRow(row, code, RowReason.BAD_EXPIRY)


def with_type(row: NewCode | RefusedRow, code_type: object) -> NewCode | RefusedRow:
    """Return the row with a type of its own, or refuse it; empty or None is no type."""
    if isinstance(row, RefusedRow) or (not code_type and isinstance(code_type, str | None)):
        return row
    if isinstance(code_type, str) and len(code_type) <= MAX_NAME_LENGTH and _IS_TYPE.fullmatch(code_type):
        return replace(row, type=code_type)
    return RefusedRow(row.row, row.code, RowReason.BAD_TYPE)


@dataclass(frozen=True, slots=True)
class OpenTerms:
    """What a coupon leaves open to its codes.

    Args:
        has_type: whether the coupon has a type, so that its codes may have none of their own.
        has_benefit: the same of the benefit.
        code_types: the types that codes of it have already.
    """

    has_type: bool = False
    has_benefit: bool = False
    code_types: frozenset[str] = frozenset()

    def leaves_open_as(self, other: "OpenTerms") -> bool:
        """Whether the coupon has a type and a benefit where it has them in `other`."""
        return (self.has_type, self.has_benefit) == (other.has_type, other.has_benefit)

    def refused(self, rows: Iterable[NewCode]) -> dict[str, RowReason]:
        """Return the codes of those rows whose type or benefit is refused, and why. The first types are admitted."""
        types, refused = set(self.code_types), dict[str, RowReason]()
        for row in rows:
            if row.type is not None and self.has_type:
                refused[row.code] = RowReason.COUPON_HAS_TYPE
            elif row.benefit is not None and self.has_benefit:
                refused[row.code] = RowReason.COUPON_HAS_BENEFIT
            elif row.type is not None and row.type not in types:
                if len(types) >= MAX_CODE_TYPES:
                    refused[row.code] = RowReason.TOO_MANY_TYPES
                else:
                    types.add(row.type)
        return refused


@dataclass(slots=True)
class Intake:
    """The rows of one file: how many were added, and which were refused.

    Args:
        added: the number of codes added.
        refused_count: the number of refused rows.
        refused: the first refused rows, 1000 at most.
        seen: codes of rows read so far, to find duplicates.
    """

    added: int = 0
    refused_count: int = 0
    refused: list[RefusedRow] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)

    def sort(self, rows: Iterable[NewCode | RefusedRow]) -> list[NewCode]:
        """Return the rows that may be added, and refuse the others."""
        fit: list[NewCode] = []
        for row in rows:
            if isinstance(row, RefusedRow):
                self.refuse(row)
            elif row.code in self.seen:
                self.refuse(RefusedRow(row.row, row.code, RowReason.DUPLICATE))
            else:
                self.seen.add(row.code)
                fit.append(row)
        return fit

    def refuse(self, row: RefusedRow) -> None:
        """Count a refused row, and keep it if it is among the first."""
        self.refused_count += 1
        if len(self.refused) < _MOST_REFUSED_SHOWN:
            self.refused.append(row)

    def without(self, rows: Sequence[NewCode], taken: Mapping[str, RowReason]) -> "Intake":
        """Return a copy that counts `rows` as added, except those whose codes are in `taken`, with the reason."""
        intake = replace(self, refused=list(self.refused), added=self.added + len(rows) - len(taken))
        for row in rows:
            if row.code in taken:
                intake.refuse(RefusedRow(row.row, row.code, taken[row.code]))
        return intake

    def result(self) -> CodesAdded:
        """Return the outcome, refused rows in their order."""
        return CodesAdded(self.added, self._in_order(), self.refused_count)

    def refusal(self) -> RowsRefused:
        """Return the outcome of an atomic upload with refused rows."""
        return RowsRefused(self._in_order(), self.refused_count)

    def _in_order(self) -> tuple[RefusedRow, ...]:
        return tuple(sorted(self.refused, key=lambda refused: refused.row))
