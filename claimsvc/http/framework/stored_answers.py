"""Bounds the answers that one caller has stored under idempotency keys without using anything up.

Whoever may claim can be refused any number of times, each time under a new key, and each stored answer stays for a day.
So refusals, and whatever else used no unit up, are stored for each caller up to a number that grows slowly. Beyond
it they are answered all the same, and decided anew when they are repeated. Claims are always stored: a retry must not
make another one.

The bound is of this process, and in its memory: it costs no round trip, and a restart at most doubles what is stored.
"""

import time
from collections.abc import Callable

from aiohttp import web

from claimsvc.domain import Caller

_AT_ONCE = 1000
_SECONDS_EACH = 60.0
_CALLERS_REMEMBERED = 10_000


class StoredAnswers:
    """How many answers that used nothing up each caller may still have stored.

    Args:
        at_once: how many a caller may have stored at once.
        seconds_each: after how many seconds it may have another one stored.
        callers: how many callers are remembered. While all of them are using their share, nothing more is stored for
            new ones.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        at_once: int = _AT_ONCE,
        seconds_each: float = _SECONDS_EACH,
        callers: int = _CALLERS_REMEMBERED,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._at_once = at_once
        self._seconds_each = seconds_each
        self._callers = callers
        self._clock = clock
        # By caller: when its whole share is there again (generic cell rate algorithm).
        self._whole_at: dict[str, float] = {}

    def may_store(self, caller: str) -> bool:
        """Whether another answer of the caller may be stored."""
        whole_at = self._whole_at.get(caller)
        if whole_at is None:
            return len(self._whole_at) < self._callers or self._forget()
        return whole_at - self._clock() <= (self._at_once - 1) * self._seconds_each

    def stored(self, caller: str) -> None:
        """Count an answer of the caller that was stored."""
        now = self._clock()
        self._whole_at[caller] = max(self._whole_at.get(caller, now), now) + self._seconds_each

    def _forget(self) -> bool:
        """Forget callers whose whole share is there again. Returns whether there were any."""
        now = self._clock()
        before = len(self._whole_at)
        self._whole_at = {caller: whole_at for caller, whole_at in self._whole_at.items() if whole_at > now}
        return len(self._whole_at) < before


def bounded_caller(caller: Caller, address: str | None) -> str | None:
    """Whose share an answer counts against: the user with a token, or else the address; None for keys of operators.

    Args:
        caller: the request's caller.
        address: its client's address; None if it is unknown.
    """
    if caller.user_id is not None:
        return caller.name
    return (address or "") if caller.is_anonymous else None


STORED_ANSWERS: web.AppKey[StoredAnswers] = web.AppKey("stored_answers", StoredAnswers)
