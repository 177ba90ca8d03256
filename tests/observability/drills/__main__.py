"""Run drills in real time, with the intervals of Compose and the rules as they are, and write the table of the runbook.

`python -m tests.observability.drills` runs all of them, in about 40 minutes; words select some by their names.
`python -m tests.observability.drills hour` is no drill: it shows that a usual hour pages nobody.
"""

import asyncio
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.observability.drills import hour
from tests.observability.drills.drills import DRILLS, Drill
from tests.observability.drills.record import Entry, save
from tests.observability.drills.running import run
from tests.observability.drills.stack import REAL, open_stack

_FIRES_SECONDS = 300.0
_LASTS_SECONDS = 100.0
_SILENT_SECONDS = 300.0
_LASTS_LONGER = {"PostgreSQL is stopped": 330.0}


async def drilled(drill: Drill, folder: Path) -> Entry:
    """Run one drill on servers of its own, because objectives look back."""
    async with open_stack(REAL, folder) as stack:
        await asyncio.sleep(30)  # until the rules have seen what is healthy
        stack.answers.clear()
        began_at = time.monotonic()
        lasts = _LASTS_LONGER.get(drill.name, _LASTS_SECONDS)
        ran = await run(drill, stack, fires_seconds=_FIRES_SECONDS, lasts_seconds=lasts, silent_seconds=_SILENT_SECONDS)
        [failed] = await stack.prometheus.query("job:claimsvc_balancer_failed:ratio_rate1h")
        sys.stderr.write(f"{drill.name}: {ran}\n  users got {dict(stack.answers)}\n")
    return Entry(
        name=drill.name,
        first=drill.first,
        fires_seconds=ran.fired[drill.first],
        pages={name: seconds for name, seconds in ran.fired.items() if name in ran.pages},
        lasted_seconds=round(time.monotonic() - began_at - ran.silent_seconds),
        silent_seconds=ran.silent_seconds,
        availability_of_hour=round(1 - failed.value, 4),
        command=drill.command,
        printed=ran.printed,
    )


def main(words: list[str]) -> int:
    if words == ["hour"]:
        return hour.main(60)
    chosen = [drill for drill in DRILLS if not words or any(word in drill.name for word in words)]
    status = 0
    for drill in chosen:
        if why_not := drill.needs():
            sys.stderr.write(f"{drill.name}: left out. {why_not}\n")
            continue
        folder = Path(tempfile.mkdtemp())
        try:
            save([asyncio.run(drilled(drill, folder))])
        except Exception as error:  # noqa: BLE001 - the others are still of interest
            sys.stderr.write(f"{drill.name}: {type(error).__name__}: {error}\n")
            status = 1
        finally:
            shutil.rmtree(folder)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
