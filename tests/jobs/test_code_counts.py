"""How often codes are counted while claims go on."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import cast

from claimsvc.domain import CodeCounts
from claimsvc.jobs.code_counts import CodeCountUpdater
from claimsvc.ports import CodeCounters, Codes
from tests.support.waiting import until


@dataclass
class BusyCodes:
    """`ports.Codes` whose codes are claimed while they are counted."""

    updater: CodeCountUpdater
    is_busy: bool = True
    counted: list[tuple[str | None, float]] = field(default_factory=list)

    async def count(self, coupon_type: str | None) -> CodeCounts:
        self.counted.append((coupon_type, time.monotonic()))
        await asyncio.sleep(0.02)
        if self.is_busy:
            self.updater.changed({coupon_type})
        return CodeCounts(1, 1, 0, 0)


class Counters:
    """`ports.CodeCounters`."""

    async def begin(self, coupon_type: str | None) -> int:
        return 1

    async def put(self, coupon_type: str | None, number: int, counts: CodeCounts) -> bool:
        return True


async def test_a_type_that_changes_all_the_time_is_not_counted_all_the_time() -> None:
    updater = CodeCountUpdater()
    codes = BusyCodes(updater)
    async with updater.running(cast("Codes", codes), cast("CodeCounters", Counters())):
        updater.changed({"a", "b"})
        await until(lambda: len(codes.counted) >= 6, "three counts of both")
        rounds = [codes.counted[place : place + 2] for place in range(0, 6, 2)]
        assert all({coupon_type for coupon_type, _ in each} == {"a", "b"} for each in rounds)
        # Each took 20 ms: 200 ms to gather changes, and ten times as long as both of them took.
        pauses = [rounds[place + 1][0][1] - rounds[place][1][1] for place in range(2)]
        assert all(pause >= 0.5 for pause in pauses), pauses
        codes.is_busy = False
        now = time.monotonic()
        updater.changed({"b"})
        await until(lambda: codes.counted[-1][1] > now, "what changed last is counted")
    assert len(codes.counted) < 16
