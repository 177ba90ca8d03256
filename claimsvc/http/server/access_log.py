"""What is kept of each request: one count, and one line in the log.

Under load most lines say the same, and each costs as much as a good part of its answer. So beyond some lines a second
only a sample is written of what was answered as it should be; each such line says of how many it is one. What went
wrong is always written.
"""

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Protocol

import structlog
from aiohttp import web

from claimsvc.domain.outcomes import name_of
from claimsvc.http.server.observers import HttpObserver
from claimsvc.ports import PendingOutcome, Stages

# Of the requests beyond those that all get a line, one in so many does.
_SAMPLED_ONE_IN = 100


class ClaimUnderWay(Protocol):
    """What a request claims, and the answer to come. Without a name it was left open, or was refused before."""

    @property
    def coupon_name(self) -> str | None: ...
    @property
    def answer(self) -> PendingOutcome: ...


@dataclass(frozen=True, slots=True)
class Claim:
    """`ClaimUnderWay`."""

    coupon_name: str | None
    answer: PendingOutcome


CLAIM: web.RequestKey[Claim] = web.RequestKey("claim", Claim)


class Sampler:
    """Which of many lines are written: within each second the first ones, and of the rest one in a hundred.

    Args:
        lines_per_second: how many those first ones are.
    """

    def __init__(self, lines_per_second: int) -> None:
        self._lines_per_second = lines_per_second
        self._second_ends = 0.0
        self._seen = 0

    def sample_rate(self, now: float) -> float:
        """The share of its like that a line of this moment (monotonic seconds) stands for; 0 if it is not written."""
        if now >= self._second_ends:
            self._second_ends = now + 1.0
            self._seen = 0
        self._seen = seen = self._seen + 1
        if seen <= self._lines_per_second:
            return 1.0
        return 0.0 if (seen - self._lines_per_second) % _SAMPLED_ONE_IN else 1 / _SAMPLED_ONE_IN


class AccessLog:
    """One count for each request, and one log line.

    Args:
        observer: told of each.
        lines_per_second: how many requests that are answered as they should be get a line before it is a sample.
    """

    def __init__(self, observer: HttpObserver, lines_per_second: int) -> None:
        self._observer = observer
        self._sampler = Sampler(lines_per_second)
        self._log = structlog.get_logger("claimsvc.http")

    def add(
        self,
        *,
        method: str,
        path: str,
        route: str,
        status: int,
        started: float,
        request_id: str,
        remote: str | None,
        claim: ClaimUnderWay | None = None,
        defect: BaseException | None = None,
    ) -> None:
        """Record an answered request.

        Args:
            method: a known method or `OTHER`.
            path: as it is to be logged, so that it stays one line.
            route: the route's template or `unmatched`.
            status: what it was answered.
            started: when its head had arrived, in monotonic seconds.
            request_id: its id.
            remote: the address that it came from.
            claim: what it claimed, if it came to that.
            defect: what broke, if something did.
        """
        now = time.monotonic()
        self._observer.observed(method, route, status, now - started)
        level = logging.INFO if status < 500 else logging.WARNING if defect is None else logging.ERROR
        sample_rate = self._sampler.sample_rate(now) if level == logging.INFO else 1.0
        if not sample_rate:
            return
        log = self._log.bind()  # once, where each use of it would do so
        if not log.is_enabled_for(level):
            return  # before a line is put together, which costs more than all the rest of this file
        line = {
            "method": method,
            "path": path,
            "route": route,
            "status": status,
            "duration_ms": _milliseconds(now - started),
            "request_id": request_id,
            "remote": remote,
            **self.details(claim, started, now),
        }
        if sample_rate < 1:
            line["sample_rate"] = sample_rate
        if defect is not None:
            line["exc_info"] = defect
        log.log(level, "request", **line)

    def details(self, claim: ClaimUnderWay | None, started: float, ended: float) -> dict[str, object]:
        """What a line says of a claim: the coupon, what it came to, and how long it was in each stage."""
        if claim is None or claim.coupon_name is None or not claim.answer.done():
            return {}
        answer = claim.answer
        result = asyncio.CancelledError() if answer.cancelled() else answer.exception() or answer.result()
        stages: Stages | None = getattr(answer, "stages", None)
        times = stages.seconds(started, ended) if stages is not None else {}
        return {
            "coupon": claim.coupon_name,
            "outcome": name_of(result),
            **{f"{stage}_ms": _milliseconds(seconds) for stage, seconds in times.items()},
        }


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
