"""What traces this process: it wraps the parts of the service, and sends what it has found to a collector."""

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from importlib.metadata import version

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Tracer

from claimsvc.observability.tracing.requests import RequestTracer
from claimsvc.observability.tracing.spans import trace_id_here
from claimsvc.observability.tracing.work import TracedAdmission, TracedLock, TracedStrategy, TracedWork, trace_master
from claimsvc.ports import Admission, Lock, Strategy
from claimsvc.redis.masters import Master

# How long a span may wait to be sent together with others.
_SEND_SECONDS = 1.0
# A collector that is slow or down costs spans, never claims: so many are kept for it, and the oldest are dropped.
_MOST_UNSENT = 8192
_COLLECTOR_SECONDS = 5.0
# How long the end of the service may wait for the collector.
_FAREWELL_SECONDS = 2.0
_MOST_LINKS = 1024

_log = structlog.get_logger("claimsvc.tracing")


class Tracing:
    """What wraps the parts of the service."""

    trace_id = staticmethod(trace_id_here)
    """The trace of what is done here, None if it is not traced: for exemplars."""

    def __init__(self, tracer: Tracer, traces_per_second: int) -> None:
        self._tracer = tracer
        self.requests = RequestTracer(tracer, traces_per_second)
        self.work = TracedWork(tracer)

    def strategy(self, strategy: Strategy) -> Strategy:
        return TracedStrategy(strategy)

    def lock(self, lock: Lock) -> Lock:
        return TracedLock(lock, self._tracer)

    def masters(self, masters: Iterable[Master]) -> None:
        for master in masters:
            trace_master(master, self._tracer)

    def admission(self, admission: Admission) -> Admission:
        return TracedAdmission(admission, self._tracer)


@asynccontextmanager
async def opened(url: str, *, traces_per_second: int) -> AsyncIterator[Tracing]:
    """See `claimsvc.observability.tracing.open_tracing`."""
    resource = Resource.create(
        {"service.name": "claimsvc", "service.version": version("claimsvc"), "process.pid": os.getpid()}
    )
    # Which claims are traced is decided before the SDK is asked, so that the others cost nothing there.
    provider = TracerProvider(
        sampler=ALWAYS_ON, resource=resource, span_limits=SpanLimits(max_links=_MOST_LINKS), shutdown_on_exit=False
    )
    provider.add_span_processor(
        BatchSpanProcessor(
            OTLPSpanExporter(url, timeout=_COLLECTOR_SECONDS),
            max_queue_size=_MOST_UNSENT,
            schedule_delay_millis=_SEND_SECONDS * 1000,
        )
    )
    _log.info("tracing", traces_per_second=traces_per_second)
    try:
        yield Tracing(provider.get_tracer("claimsvc", version("claimsvc")), traces_per_second)
    finally:
        await _shut_down(provider)


async def _shut_down(provider: TracerProvider) -> None:
    """Send what is left, unless the collector takes too long: the end of the service does not wait for it."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def shut_down() -> None:
        provider.shutdown()
        with contextlib.suppress(RuntimeError):  # too late: the loop is closed
            loop.call_soon_threadsafe(ended.set)

    # A thread of its own that nobody joins, where an executor's would be waited for when the process ends.
    threading.Thread(target=shut_down, daemon=True).start()
    try:
        async with asyncio.timeout(_FAREWELL_SECONDS):
            await ended.wait()
    except TimeoutError:
        _log.warning("the last spans were not sent: the collector does not answer")
