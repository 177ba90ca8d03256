"""What goes on in the background."""

import asyncio
import time

from claimsvc.jobs import event_loop_watched


async def test_a_stalled_event_loop_is_told_with_how_late_it_was() -> None:
    lags: list[float] = []
    async with event_loop_watched(lags.append):
        await asyncio.sleep(0)  # it begins to sleep
        time.sleep(0.4)  # noqa: ASYNC251 - this is the stall
        while not lags:
            await asyncio.sleep(0.01)
    assert 0.25 <= lags[0] < 2
