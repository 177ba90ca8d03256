"""The heading of a file: its first line that is not empty, if a cell of it names a column.

`Code` and `USER_ID` name the columns `code` and `user_id`. What only resembles a name, such as `Coupon code` or
`userid`, is neither skipped nor taken as data: the file is refused, and its sender says which it is.
"""

import re
from collections.abc import Collection

CODE, EXPIRES_AT, TYPE, USER_ID = "code", "expires_at", "type", "user_id"

_IGNORED = re.compile(r"[\W_]")
# Beside the columns' own names. Too many words cost their sender a heading, too few give users a heading as their code.
_OF_CODES = {
    *("codeid", "coupon", "coupons", "couponid", "couponnumber", "쿠폰"),
    *("voucher", "vouchers", "voucherid", "vouchernumber", "serial", "serials", "serialnumber"),
    *("expires", "expiry", "expirydate", "expirationdate", "만료일", "만료일시"),
}
_OF_USERS = {
    *("user", "users", "customer", "customers", "customerid", "customerids", "member", "members", "memberid"),
    *("memberids", "account", "accountid", "id", "ids", "uid", "email", "emails", "emailaddress"),
}
_ENDS_OF_CODES = ("code", "codes", "코드", "번호")
_ENDS_OF_USERS = ("userid", "userids", "username", "usernames")


def names(cell: str, column: str) -> bool:
    """Whether a cell of a heading names the column."""
    return cell.strip().lower() == column


def resembles_one_of_codes(cell: str, columns: Collection[str]) -> bool:
    """Whether a cell looks like a name of a column of codes, in any spelling: one of `columns`, or a word for one."""
    word = _word(cell)
    return word.endswith(_ENDS_OF_CODES) or word in _OF_CODES or any(word == _word(column) for column in columns)


def resembles_one_of_users(cell: str) -> bool:
    """Whether a cell looks like the name of a column of users, in any spelling."""
    word = _word(cell)
    return word.endswith(_ENDS_OF_USERS) or word in _OF_USERS


def _word(cell: str) -> str:
    return _IGNORED.sub("", cell).lower()
