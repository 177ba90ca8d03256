"""Unique codes: what one looks like, how it is read from a file, how it is made, and what can become of it."""

import os
import re
import unicodedata
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from claimsvc.domain.outcomes import Outcome, Refusal, outcome, refusal
from claimsvc.domain.problems import RpcCode

# Letters that no keyboard or printer changes, and Hangul syllables. Not dots only, for the reason that names are not.
CODE_PATTERN = r"^\.*[A-Za-z0-9_가-힣-][A-Za-z0-9._가-힣-]*$"
MAX_CODE_LENGTH = 64
MAX_ROWS = 200_000
MAX_GENERATED = 100_000
# A guess at a code that was generated is right once in so many times, at most.
FEWEST_POSSIBILITIES_PER_CODE = 1000
_MOST_REFUSED_SHOWN = 1000

_IS_CODE = re.compile(CODE_PATTERN)


class CodeState(StrEnum):
    """Where a code is in its life."""

    FREE = "free"
    # A claim has it that is still to be confirmed: nobody has been shown it yet.
    HELD = "held"
    CLAIMED = "claimed"
    REDEEMED = "redeemed"
    # Its claim was cancelled, or nobody claimed it before it expired: it is never given again.
    VOIDED = "voided"


@dataclass(frozen=True, slots=True)
class Code:
    """A code of a coupon. `expires_at` is until when it can be redeemed, None for ever; `claim_id` is whose it is."""

    code: str
    coupon_name: str
    state: CodeState
    claim_id: str | None = None
    expires_at: datetime | None = None
    redeemed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class NewCode:
    """A code to be added, and in which row of its file it is, counted from 1."""

    row: int
    code: str
    expires_at: datetime | None = None


class RowReason(StrEnum):
    """Why a row of a file is not taken."""

    BAD_ROW = "bad-row"
    BAD_CODE = "bad-code"
    BAD_EXPIRY = "bad-expiry"
    EXPIRED = "expired"
    DUPLICATE = "duplicate"
    EXISTS = "exists"


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A row that is not taken; `code` is empty where there is none that is fit to be shown."""

    row: int
    code: str
    reason: RowReason


@dataclass(frozen=True, slots=True)
class CodeCounts:
    """How many codes there are of a type: all that were ever added, those that a claim has or holds, those of them that
    were redeemed, and those that will never be given again. What is left of `uploaded` is free."""

    uploaded: int = 0
    claimed: int = 0
    redeemed: int = 0
    voided: int = 0


@outcome("codes-added")
@dataclass(frozen=True, slots=True)
class CodesAdded(Outcome):
    """How many codes were added, and the first of the `refused_count` rows that were not."""

    added: int
    refused: tuple[RefusedRow, ...] = ()
    refused_count: int = 0


@refusal(
    "rows-refused",
    422,
    "Some rows cannot be added",
    "Not every row can be added, so none was. `rejected` says which and why: `bad-row`, `bad-code`, `bad-expiry`, "
    "`expired`, `duplicate` of a row before it, or `exists` already, with this coupon or another.",
    "Correct these rows, or send `atomic=false` to add the others.",
)
@dataclass(frozen=True, slots=True)
class RowsRefused(Refusal):
    """Nothing was added, because some rows could not be: the first of the `refused_count` such rows."""

    refused: tuple[RefusedRow, ...]
    refused_count: int


@refusal(
    "pattern-too-small",
    409,
    "The pattern makes too few codes",
    "A pattern has to make at least 1000 times as many codes as are asked for, so that they cannot be guessed; "
    "nothing was added.",
    "Use a longer pattern.",
    rpc_code=RpcCode.INVALID_ARGUMENT,
)
@dataclass(frozen=True, slots=True)
class PatternTooSmall(Refusal):
    """The pattern makes too few codes for so many of them to be hard to guess; nothing was added."""


@refusal(
    "amount-is-codes",
    409,
    "The amount is the number of its codes",
    "The coupon has codes, so its amount is how many there are; nothing was changed.",
    "Add codes to raise it.",
)
@dataclass(frozen=True, slots=True)
class AmountIsCodes(Refusal):
    """The coupon has codes, so its amount is their number: add codes to raise it."""


@outcome("redeemed")
@dataclass(frozen=True, slots=True)
class Redeemed(Outcome):
    """This request redeemed the code."""

    code: Code


@refusal(
    "already-redeemed",
    409,
    "Already redeemed",
    "The code was redeemed before, so it cannot be redeemed again, nor its claim be cancelled.",
    "Do not retry: the answer will stay the same.",
)
@dataclass(frozen=True, slots=True)
class AlreadyRedeemed(Refusal):
    """The code was redeemed before."""


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
    "Claim the coupon first, or confirm the claim.",
)
@dataclass(frozen=True, slots=True)
class CodeNotClaimed(Refusal):
    """No confirmed claim has the code: it is free, held or voided."""


@refusal(
    "unknown-code",
    404,
    "Unknown code",
    "There is no such code.",
    "Check the code; it is case-sensitive.",
)
@dataclass(frozen=True, slots=True)
class UnknownCode(Refusal):
    """There is no such code."""


def normalized(code: str) -> str:
    """The code as it is kept: composed, because some systems take Hangul syllables apart."""
    return code if code.isascii() else unicodedata.normalize("NFC", code)


def new_code(row: int, code: object, expires_at: object) -> NewCode | RefusedRow:
    """What a row says; an expiry is a text as in RFC 3339, empty or None for none."""
    if not isinstance(code, str):
        return RefusedRow(row, "", RowReason.BAD_CODE)
    code = normalized(code)
    if len(code) > MAX_CODE_LENGTH or not _IS_CODE.fullmatch(code):
        return RefusedRow(row, "", RowReason.BAD_CODE)
    if not expires_at and isinstance(expires_at, str | None):
        return NewCode(row, code)
    try:
        moment = datetime.fromisoformat(expires_at) if isinstance(expires_at, str) else None
        # Near the ends of the calendar a time has no equal in other zones.
        if moment is not None and moment.utcoffset() is not None and 1970 <= moment.year < 9999:
            return NewCode(row, code, moment)
    except ValueError:
        pass
    return RefusedRow(row, code, RowReason.BAD_EXPIRY)


@dataclass(slots=True)
class Intake:
    """What is taken of the rows of one file, and what is not."""

    added: int = 0
    refused_count: int = 0
    refused: list[RefusedRow] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)

    def sort(self, rows: Iterable[NewCode | RefusedRow]) -> list[NewCode]:
        """Those of the rows that may be added."""
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
        """Note a row that is not taken; many of them are only counted."""
        self.refused_count += 1
        if len(self.refused) < _MOST_REFUSED_SHOWN:
            self.refused.append(row)

    def without(self, rows: Sequence[NewCode], taken: Mapping[str, RowReason]) -> "Intake":
        """This and these rows, of which all were added but those whose codes are `taken`."""
        noted = replace(self, refused=list(self.refused), added=self.added + len(rows) - len(taken))
        for row in rows:
            if row.code in taken:
                noted.refuse(RefusedRow(row.row, row.code, taken[row.code]))
        return noted

    def result(self) -> CodesAdded:
        """What came of it, in the order of the rows."""
        return CodesAdded(self.added, self._in_order(), self.refused_count)

    def refusal(self) -> RowsRefused:
        """The same where nothing is taken unless everything is."""
        return RowsRefused(self._in_order(), self.refused_count)

    def _in_order(self) -> tuple[RefusedRow, ...]:
        return tuple(sorted(self.refused, key=lambda refused: refused.row))


# Of characters that are taken for each other when they are handwritten, printed small or read aloud, one at most, in
# both together: not 0 O, 1 I L, 2 Z, 5 S, 6 G, 8 B, U V.
_LETTERS = "ACDEFHJKMNPQRTVWXY"
_DIGITS = "23456789"
# The 2,350 syllables of KS X 1001 are those that every keyboard and font has. Without a final consonant, and with
# vowels that are told apart at a glance, and by ear: ㅐ and ㅔ are not, nor are ㅒ, ㅖ, ㅙ, ㅚ, ㅞ.
_INITIALS = (0, 2, 3, 5, 6, 7, 9, 11, 12, 14, 15, 16, 17, 18)  # no doubled consonants: ㄲ is taken for ㄱ
_VOWELS = (0, 4, 8, 13, 18, 20)  # ㅏ ㅓ ㅗ ㅜ ㅡ ㅣ
_SYLLABLES = "".join(chr(0xAC00 + (initial * 21 + vowel) * 28) for initial in _INITIALS for vowel in _VOWELS)
_ALPHABETS: Mapping[str, str] = {"A": _LETTERS, "9": _DIGITS, "가": _SYLLABLES}

GENERATION_PATTERN = r"^[A-Z0-9가_-]{1,64}$"
"""`A` is a letter, `9` a digit, `가` a Hangul syllable, and anything else is itself."""


def possibilities(pattern: str) -> int:
    """How many different codes the pattern makes."""
    count = 1
    for place in pattern:
        count *= len(_ALPHABETS.get(place, place))
    return count


def make_codes(pattern: str, count: int) -> list[str]:
    """Different codes of the pattern, cryptographically random."""
    made: dict[str, None] = {}
    while len(made) < count:
        missing = count - len(made)
        columns = [_column(_ALPHABETS.get(place, place), missing) for place in pattern]
        made.update(dict.fromkeys(map("".join, zip(*columns, strict=True))))
    return list(made)


def _column(alphabet: str, count: int) -> list[str]:
    """One place of each code. What 2**32 leaves over when it is shared out favours no character by more than 1e-7."""
    size = len(alphabet)
    return [alphabet[number % size] for number in array("I", os.urandom(4 * count))]
