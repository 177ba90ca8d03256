"""Renders the metrics in a thread, for all who ask at the same time, and for a tenth of the time at most."""

import asyncio
import time
from collections.abc import Callable

# Pause after a rendering, as a multiple of its duration.
_PAUSE_FACTOR = 9

Rendering = Callable[[], tuple[bytes, str]]


class MetricsPage:
    """`/metrics` is open to everyone who reaches it, and rendering takes up to 100 ms, so it must not hold up claims.

    A request gets the metrics of a moment after its arrival: never older ones. Requests that arrive meanwhile share a
    rendering.

    Args:
        begin_render: takes an `Accept` header; called in the event loop. It returns what renders the metrics as they
            are then, which is called in a thread.
    """

    def __init__(self, begin_render: Callable[[str], Rendering]) -> None:
        self._begin_render = begin_render
        self._turns: dict[bool, asyncio.Lock] = {False: asyncio.Lock(), True: asyncio.Lock()}
        self._rendered: dict[bool, tuple[float, tuple[bytes, str]]] = {}
        self._pause_until = 0.0

    async def render(self, accept: str) -> tuple[bytes, str]:
        """The metrics, and their content type.

        Args:
            accept: the request's `Accept` header.
        """
        arrived_at = time.monotonic()
        # The only two formats.
        is_openmetrics = "application/openmetrics-text" in accept
        async with self._turns[is_openmetrics]:
            started_at, rendered = self._rendered.get(is_openmetrics, (-1.0, (b"", "")))
            if started_at < arrived_at:
                if (pause_seconds := self._pause_until - time.monotonic()) > 0:
                    await asyncio.sleep(pause_seconds)
                started_at = time.monotonic()
                rendered = await asyncio.to_thread(self._begin_render(accept))
                self._rendered[is_openmetrics] = started_at, rendered
                ended_at = time.monotonic()
                self._pause_until = ended_at + _PAUSE_FACTOR * (ended_at - started_at)
            return rendered
