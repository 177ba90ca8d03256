"""The retry policy: which attempts are repeated, and after which pause.

Retries are safe for every request of this client: GET changes nothing, cancelling again has no effect, and each POST
has a key under which the service replays its first answer.

| result of the attempt | retried? |
|---|---|
| the connection could not be made, was lost, or was silent for too long | yes |
| 408, 429, 502, 503, 504: nothing was decided, or a proxy lost the answer | yes, unless it is `queue-full` |
| 409 `key-in-flight`: an earlier attempt is still in progress | yes |
| any other answer | no |
"""

import random
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_STATUSES = frozenset({408, 429, 502, 503, 504})
_PROBLEMS = frozenset({"key-in-flight"})
# Whoever asks decides whether to wait for a place.
_DECISIONS = frozenset({"queue-full"})
# A larger power of two overflows a float. The pause has reached its limit long before.
_MOST_DOUBLINGS = 60
# More characters than a date has, and fewer digits than overflow a float.
_LONGEST_RETRY_AFTER = 64


@dataclass(frozen=True, slots=True)
class Retries:
    """The pauses between attempts, and their number.

    A pause is random between 0 and a limit that doubles each time ("full jitter"), so that clients that failed
    together do not retry together: Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015. The
    time of `Retry-After` is added to it.

    Args:
        first_pause_seconds: limit of the first pause.
        longest_pause_seconds: the limit stops growing here.
        most: most retries after the first attempt; None for as many as the deadline allows.
    """

    first_pause_seconds: float = 0.1
    longest_pause_seconds: float = 5.0
    most: int | None = None

    def pause_seconds(self, retry: int, advised_seconds: float | None) -> float:
        """Return how long to wait before a retry (seconds).

        Args:
            retry: number of the retry, from 0.
            advised_seconds: the time of `Retry-After`; None without it.
        """
        limit = min(self.longest_pause_seconds, self.first_pause_seconds * 2.0 ** min(retry, _MOST_DOUBLINGS))
        return (advised_seconds or 0.0) + random.uniform(0.0, limit)  # noqa: S311 - spreads load, guards no secret


def is_transient(status: int, slug: str | None) -> bool:
    """Whether a later attempt may get a different answer. `slug` is that of the problem, if the answer is one."""
    return slug not in _DECISIONS and (status in _STATUSES or slug in _PROBLEMS)


def advised_seconds(retry_after: str | None) -> float | None:
    """Parse a `Retry-After` header, seconds or a date (RFC 9110, section 10.2.3); None if missing or invalid."""
    if retry_after is None:
        return None
    text = retry_after.strip()
    if not text.isascii() or len(text) > _LONGEST_RETRY_AFTER:
        return None
    if text.isdigit():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError, TypeError):  # what the parser of e-mails raises, depending on the date
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
