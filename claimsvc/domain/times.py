"""Date-times that users write: RFC 3339, read alike in files, in JSON, in queries and on the command line."""

import re
from datetime import UTC, datetime

RFC_3339_RULE = "an RFC 3339 date-time with an offset, such as 2027-01-01T00:00:00Z"

# Python's own parser reads all of ISO 8601: weeks, days without hyphens, times without seconds.
_RFC_3339 = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)", re.ASCII
)


def parse_time(text: str) -> datetime:
    """Return the moment that a text names, in UTC. Of a fraction of a second, six digits count.

    Raises:
        ValueError: the text is no such date-time, or lies outside the years 1 to 9999 in UTC.
    """
    if not _RFC_3339.fullmatch(text):
        raise ValueError("Not a valid date-time")
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except OverflowError:
        raise ValueError("Out of range") from None
    except ValueError:  # such as 30 February
        raise ValueError("Not a valid date-time") from None


def format_time(moment: datetime) -> str:
    """Write a moment as answers have it: in UTC, with `Z`."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
