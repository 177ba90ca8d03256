"""Notices that the database's clock was set, because leases and paces are by it."""

import time
from datetime import datetime, timedelta

_CLOCK_TOLERANCE = timedelta(milliseconds=200)


class DatabaseClock:
    """Notices that the database's clock was set: forward, if it went faster than this process's; or back."""

    def __init__(self) -> None:
        # Stays true until it has been seen to.
        self.was_set_back = False
        self._read: tuple[datetime, float] | None = None
        self._advanced = timedelta(0)
        self._noticed_at = 0.0

    def advanced(self, now: datetime) -> timedelta:
        """Return by how much it was set forward within the last second; `now` is its time."""
        here = time.monotonic()
        if self._read is not None:
            advanced = now - self._read[0] - timedelta(seconds=here - self._read[1])
            # A late answer makes it seem slow, but never lets it go back.
            self.was_set_back = self.was_set_back or now < self._read[0]
            if advanced > _CLOCK_TOLERANCE:
                # It is known as exactly as answers take the same time: too much only delays some starts.
                self._advanced, self._noticed_at = advanced + _CLOCK_TOLERANCE, here
        self._read = now, here
        return self._advanced if here < self._noticed_at + 1 else timedelta(0)
