"""Limits of names and numbers in the API."""

# A name of dots only is refused: clients remove `.` and `..` from URLs (RFC 3986, section 5.2.4).
COUPON_NAME_PATTERN = r"^\.*[A-Za-z0-9_-][A-Za-z0-9._-]*$"
USER_ID_PATTERN = r"^[!-~]+$"
MAX_NAME_LENGTH = 255
# One line without control characters, so that it can be shown anywhere.
REASON_PATTERN = r"^[^\x00-\x20\x7f-\xa0\u2028\u2029][^\x00-\x1f\x7f-\x9f\u2028\u2029]*$"
MAX_REASON_LENGTH = 500
MAX_AMOUNT = 2**31 - 1
MAX_PER_USER_LIMIT = 1000
MAX_HOLD_SECONDS = 86_400
MAX_LISTED_USERS = 1_000_000
