"""The access log: one metric and one log line for each request.

Under load most lines are alike, and writing one costs a considerable part of the response. So when requests exceed a
number per second, only a sample of them is logged; `sample_rate` in a line is the size of the sample. Requests that are
answered with a status of 500 or above are always logged.
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

# Of the requests beyond `lines_per_second`, one in this many is logged.
_SAMPLED_ONE_IN = 100


class PendingClaim(Protocol):
    """A request's claim and its pending outcome. `coupon_name` is None if the request names no coupon."""

    @property
    def coupon_name(self) -> str | None: ...
    @property
    def answer(self) -> PendingOutcome: ...


@dataclass(frozen=True, slots=True)
class Claim:
    """A `PendingClaim` of aiohttp's path."""

    coupon_name: str | None
    answer: PendingOutcome


CLAIM: web.RequestKey[Claim] = web.RequestKey("claim", Claim)


class Sampler:
    """Chooses the lines that are written: the first ones of each second, and one in a hundred of the rest.

    Args:
        lines_per_second: how many lines are written in each second before sampling begins.
    """

    def __init__(self, lines_per_second: int) -> None:
        self._lines_per_second = lines_per_second
        self._second_ends = 0.0
        self._seen = 0

    def sample_rate(self, now: float) -> float:
        """The sample rate of a line at this moment: 1 or 0.01, or 0 if the line is not to be written.

        Args:
            now: monotonic time in seconds.
        """
        if now >= self._second_ends:
            self._second_ends = now + 1.0
            self._seen = 0
        self._seen = seen = self._seen + 1
        if seen <= self._lines_per_second:
            return 1.0
        return 0.0 if (seen - self._lines_per_second) % _SAMPLED_ONE_IN else 1 / _SAMPLED_ONE_IN


class AccessLog:
    """Records each request as a metric and a log line.

    Args:
        observer: receives every request.
        lines_per_second: how many requests with a status below 500 are logged each second before sampling begins.
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
        claim: PendingClaim | None = None,
        defect: BaseException | None = None,
    ) -> None:
        """Record an answered request.

        Args:
            method: a known method or `OTHER`.
            path: printable, on one line, without private names.
            route: the route's template or `unmatched`.
            status: the response's HTTP status.
            started: when the request's head had arrived, in monotonic seconds.
            request_id: the request's id.
            remote: the client's address.
            claim: the claim that the request began, if any.
            defect: the unexpected exception, if one was raised.
        """
        now = time.monotonic()
        self._observer.observed(method, route, status, now - started)
        level = logging.INFO if status < 500 else logging.WARNING if defect is None else logging.ERROR
        sample_rate = self._sampler.sample_rate(now) if level == logging.INFO else 1.0
        if not sample_rate:
            return
        log = self._log.bind()  # binds now; otherwise each use of the lazy logger would
        if not log.is_enabled_for(level):
            return  # building the line costs more than the rest of this method
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

    def details(self, claim: PendingClaim | None, started: float, ended: float) -> dict[str, object]:
        """The fields of a claim's line: the coupon, the outcome, and the time in each stage.

        Args:
            claim: the claim; there are no fields for None, for a claim without a name, and for a pending one.
            started: when the request's head had arrived, in monotonic seconds.
            ended: when the response was ready, in monotonic seconds.
        """
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
