"""The heading of a file: its first line that is not empty, if a cell of it names a column.

`Code` and `USER_ID` name the columns `code` and `user_id`. What only resembles a name, such as `Coupon code` or
`userid`, is neither skipped nor taken as data: the file is refused, and its sender says which it is.
"""

import re
from collections.abc import Mapping

CODE, EXPIRES_AT, TYPE, USER_ID = "code", "expires_at", "type", "user_id"

_IGNORED = re.compile(r"[\W_]")
_RESEMBLING: Mapping[str, frozenset[str]] = {
    CODE: frozenset({"code", "codes", "couponcode", "couponcodes", "couponnumber", "코드", "쿠폰코드", "쿠폰번호"}),
    EXPIRES_AT: frozenset({"expiresat", "expires", "expiry", "expirydate", "expirationdate", "만료일", "만료일시"}),
    USER_ID: frozenset({"userid", "userids", "user", "users"}),
}


def names(cell: str, column: str) -> bool:
    """Whether a cell of a heading names the column."""
    return cell.strip().lower() == column


def resembles(cell: str, column: str) -> bool:
    """Whether a cell looks like a name of the column, in any spelling."""
    return _IGNORED.sub("", cell).lower() in _RESEMBLING[column]
