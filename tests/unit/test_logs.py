"""Lines on stderr, as a program sees them that reads them."""

import json
import subprocess
import sys

_PROGRAM = """
import asyncio, logging
import structlog
from claimsvc import logs

logs.configure("info", "json")
log = structlog.get_logger("claimsvc.test")

async def main():
    for number in range(200):
        log.info("counted", number=number, text="a line\\nbreak and \\x1b[31m colour")
    log.debug("hidden")
    logging.getLogger("library").warning("from the standard library")
    try:
        1 / 0
    except ZeroDivisionError:
        log.exception("failed")
    log.info("last")

asyncio.run(main())
"""


def test_every_event_is_one_line_of_json_and_none_is_lost_at_the_end() -> None:
    run = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in run.stderr.splitlines()]
    ours = [line for line in lines if line["logger"] == "claimsvc.test"]
    assert [line["number"] for line in ours[:200]] == list(range(200))
    assert ours[0]["text"] == "a line\nbreak and \x1b[31m colour"
    assert [line["event"] for line in ours[200:]] == ["failed", "last"]
    assert "ZeroDivisionError" in ours[200]["exception"]
    assert {"event": "from the standard library", "level": "warning"}.items() <= next(
        line for line in lines if line["logger"] == "library"
    ).items()
    assert all(line["timestamp"].endswith("Z") for line in lines)
