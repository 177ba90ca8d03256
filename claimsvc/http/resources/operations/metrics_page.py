"""Renders the metrics in a thread, for all who ask at the same time, and for a tenth of the time at most."""

import asyncio
import time
from collections.abc import Callable

# Pause after a rendering, as a multiple of the CPU time that it took. On a busy machine it takes longer than that, but
# a scrape has a time limit.
_PAUSE_FACTOR = 9
_LONGEST_PAUSE_SECONDS = 0.5

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
                rendered, took_seconds = await asyncio.to_thread(_timed, self._begin_render(accept))
                self._rendered[is_openmetrics] = started_at, rendered
                self._pause_until = time.monotonic() + min(_PAUSE_FACTOR * took_seconds, _LONGEST_PAUSE_SECONDS)
            return rendered


def _timed(render: Rendering) -> tuple[tuple[bytes, str], float]:
    """Return the rendering, and the CPU time of this thread that it took, in seconds."""
    started_at = time.thread_time()
    return render(), time.thread_time() - started_at
