"""Tracing of this process: wraps the parts of the service, and exports the spans to a collector."""

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
from claimsvc.ports import FencedAdmission, Lock, Strategy
from claimsvc.redis.masters import Master

# Spans are sent in batches at this interval.
_SEND_SECONDS = 1.0
# If the collector is slow or down, this many spans are kept and the oldest are dropped. Claims never wait for it.
_MOST_UNSENT = 8192
_COLLECTOR_SECONDS = 5.0
# Longest wait for the collector when the service stops.
_SHUTDOWN_SECONDS = 2.0
_MOST_LINKS = 1024

_log = structlog.get_logger("claimsvc.tracing")


class Tracing:
    """Wraps the parts of the service so that they create spans."""

    trace_id = staticmethod(trace_id_here)
    """Returns the id of the current trace, for exemplars; None if the current work is not traced."""

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

    def admission(self, admission: FencedAdmission) -> FencedAdmission:
        return TracedAdmission(admission, self._tracer)


@asynccontextmanager
async def opened(url: str, *, traces_per_second: int) -> AsyncIterator[Tracing]:
    """See `claimsvc.observability.tracing.open_tracing`."""
    resource = Resource.create(
        {"service.name": "claimsvc", "service.version": version("claimsvc"), "process.pid": os.getpid()}
    )
    # `RequestTracer` samples before it calls the SDK, so that claims which are not traced cost nothing there.
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
    """Send the remaining spans, but do not wait for the collector longer than `_SHUTDOWN_SECONDS`."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def shut_down() -> None:
        provider.shutdown()
        with contextlib.suppress(RuntimeError):  # the event loop is closed already
            loop.call_soon_threadsafe(ended.set)

    # A daemon thread, because the process would wait for a thread of an executor when it ends.
    threading.Thread(target=shut_down, daemon=True).start()
    try:
        async with asyncio.timeout(_SHUTDOWN_SECONDS):
            await ended.wait()
    except TimeoutError:
        _log.warning("the last spans were not sent: the collector does not answer")
