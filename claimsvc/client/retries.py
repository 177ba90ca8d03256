"""When a request is sent again, and how long to wait before: the only file that says so.

Sending again is safe for all that this client sends: reading changes nothing, cancelling twice is cancelling once,
and each POST has a key under which the service gives its first answer again.

| what came back | again? |
|---|---|
| nothing: the connection could not be made, was lost, or said nothing for too long | yes |
| 408, 429, 502, 503, 504: nothing was decided, or a proxy lost the answer | yes |
| 409 `key-in-flight`: an earlier attempt is still being worked on | yes |
| any other answer | no: it is the answer |
"""

import random
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_STATUSES = frozenset({408, 429, 502, 503, 504})
_PROBLEMS = frozenset({"key-in-flight"})
# Past this a power of two is no float any more; every pause is the longest by then.
_MOST_DOUBLINGS = 60


@dataclass(frozen=True, slots=True)
class Retries:
    """How patiently a request is sent again.

    A pause is drawn evenly from 0 up to a limit that doubles each time ("full jitter"), so that clients that failed
    together do not come back together: Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    What the service advises by `Retry-After` is waited first.

    Args:
        first_pause_seconds: limit of the first pause.
        longest_pause_seconds: no limit grows beyond it.
        most: retries after the first attempt; None for as many as the deadline leaves room for.
    """

    first_pause_seconds: float = 0.1
    longest_pause_seconds: float = 5.0
    most: int | None = None

    def pause_seconds(self, retry: int, advised_seconds: float | None) -> float:
        """How long to wait before a retry.

        Args:
            retry: 0 for the first.
            advised_seconds: what `Retry-After` says; None where there is none.
        """
        limit = min(self.longest_pause_seconds, self.first_pause_seconds * 2.0 ** min(retry, _MOST_DOUBLINGS))
        return (advised_seconds or 0.0) + random.uniform(0.0, limit)  # noqa: S311 - spreads load, guards no secret


def is_transient(status: int, slug: str | None) -> bool:
    """Whether the same request may be answered otherwise later; `slug` is the problem's, if it is one."""
    return status in _STATUSES or slug in _PROBLEMS


def advised_seconds(retry_after: str | None) -> float | None:
    """What a `Retry-After` header says (RFC 9110, section 10.2.3): seconds, or a date; None if it says nothing."""
    if retry_after is None:
        return None
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
