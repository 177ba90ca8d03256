"""Limits of names, texts and numbers in the API, and the rules in words, each of which completes "it must be"."""

import re

# A name of dots only is refused: clients remove `.` and `..` from URLs (RFC 3986, section 5.2.4).
# Single blanks (U+0020) stand between words, of which one is not only dots.
COUPON_NAME_PATTERN = r"^(\.+ )*\.*[A-Za-z0-9_-][A-Za-z0-9._-]*( [A-Za-z0-9._-]+)*$"
COUPON_TYPE_PATTERN = r"^\.*[A-Za-z0-9_-][A-Za-z0-9._-]*$"
COUPON_TYPE_RULE = "1 to 255 characters of A-Z a-z 0-9 . _ -, not only dots"
COUPON_NAME_RULE = f"{COUPON_TYPE_RULE}; single blanks may stand between them"
COUPON_SEARCH_PATTERN = r"^[A-Za-z0-9._ -]*$"
COUPON_SEARCH_RULE = "a part of the name, of A-Z a-z 0-9 . _ - and blanks"
USER_ID_PATTERN = r"^[!-~]+$"
USER_ID_RULE = "1 to 255 visible ASCII characters, without spaces"
MAX_NAME_LENGTH = 255
# Control characters, line breaks, and what reorders the text that follows it.
_NOT_ON_ONE_LINE = r"\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069"
# Those, spaces, and all that is shown as nothing, whatever its category: U+3164 is a letter, U+2800 a symbol.
_INVISIBLE = (
    _NOT_ON_ONE_LINE
    + r"\x20\xa0\xad\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180f\u2000-\u200f\u202f\u205f-\u206f"
    + r"\u2800\u3000\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
)
# Beyond the 16 bits that every dialect of regular expressions can write.
_INVISIBLE_BEYOND = re.compile(
    r"[\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d159\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
# One line that begins visibly, so that it can be shown anywhere. Documents show the pattern; `is_visible_line` decides.
REASON_PATTERN = rf"^[^{_INVISIBLE}][^{_NOT_ON_ONE_LINE}]*$"
MAX_REASON_LENGTH = 500
REASON_RULE = "1 to 500 characters on one line, of which the first is visible"
MAX_AMOUNT = 2**31 - 1
MAX_PER_USER_LIMIT = 1000
MAX_USES = 1000
MAX_CLAIMS_PER_USER = 1_000_000
# How many more claims than units one user may make of a coupon, unless its campaign says otherwise.
FURTHER_CLAIMS = 10
MAX_HOLD_SECONDS = 86_400
MAX_LISTED_USERS = 1_000_000

_LINE = re.compile(REASON_PATTERN)


def is_visible_line(text: str) -> bool:
    """Whether the text is one line that begins with a visible character, and is shown in the order it was written."""
    return _LINE.fullmatch(text) is not None and not _INVISIBLE_BEYOND.match(text)
