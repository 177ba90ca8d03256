"""Lines on stderr, as a program sees them that reads them."""

import json
import subprocess
import sys

import pytest

from claimsvc.http.server.access_log import Sampler
from claimsvc.ports import LockWait, Stages

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


_CLIENTS = """
import logging
import structlog
from opentelemetry.trace import NoOpTracer
from claimsvc import logs
from claimsvc.observability.tracing.requests import RequestTracer

logs.configure("info", "json")
parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
for state in ("forged", "=,", "a=b," * 40, "\\udcff"):
    RequestTracer(NoOpTracer(), 10).begin("POST", "/", {"traceparent": parent, "tracestate": state})
logging.getLogger("library").warning("not UTF-8: \\udcff")
structlog.get_logger("claimsvc.test").warning("not UTF-8: \\udcff", number=1)
"""


def test_no_client_writes_lines_of_its_own_and_none_is_lost_for_what_it_sent() -> None:
    run = subprocess.run([sys.executable, "-c", _CLIENTS], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in run.stderr.splitlines()]
    assert [(line["logger"], line["event"]) for line in lines] == [
        ("library", "not UTF-8: \udcff"),
        ("claimsvc.test", "not UTF-8: \udcff"),
    ]
    assert all(line["timestamp"].endswith("Z") for line in lines)


def test_within_a_second_the_first_lines_are_all_kept_and_then_one_in_a_hundred() -> None:
    sampler = Sampler(lines_per_second=10)
    first = [sampler.sample_rate(now=5.0 + number / 1000) for number in range(510)]
    assert first[:10] == [1.0] * 10
    assert [rate for rate in first[10:] if rate] == [0.01] * 5
    assert [sampler.sample_rate(now=6.1) for _ in range(11)] == [1.0] * 10 + [0.0]


def test_a_limit_of_none_samples_all() -> None:
    sampler = Sampler(lines_per_second=0)
    assert sum(1 for _ in range(1000) if sampler.sample_rate(now=1.0)) == 10


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        pytest.param(
            Stages(LockWait(2.0, 3.0), taken_at=4.0, decided_at=6.0),
            {"queue_wait": 2.0, "lock_wait": 1.0, "transaction": 2.0},
            id="it waited for the lock",
        ),
        pytest.param(
            Stages(LockWait(0.0, 1.5), taken_at=4.0, decided_at=6.0),
            {"queue_wait": 2.5, "lock_wait": 0.5, "transaction": 2.0},
            id="it came while the lock was being waited for",
        ),
        pytest.param(
            Stages(LockWait(0.0, 0.5), taken_at=4.0, decided_at=6.0),
            {"queue_wait": 3.0, "lock_wait": 0.0, "transaction": 2.0},
            id="it came while the lock was held",
        ),
        pytest.param(Stages(LockWait(2.0)), {"queue_wait": 1.0, "lock_wait": 5.0}, id="the lock was never had"),
        pytest.param(Stages(taken_at=4.0), {"queue_wait": 3.0, "transaction": 3.0}, id="it was not decided in time"),
        pytest.param(Stages(), {"queue_wait": 6.0}, id="it was refused where it waited"),
    ],
)
def test_a_claim_s_time_is_told_by_stage(stages: Stages, expected: dict[str, float]) -> None:
    assert stages.seconds(arrived_at=1.0, ended_at=7.0) == expected
