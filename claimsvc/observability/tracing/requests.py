"""The server spans of claims, and the choice of the claims that get one."""

import time
from collections.abc import Mapping
from contextvars import ContextVar, Token

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from claimsvc.observability.tracing.spans import span_here, trace_id_of

_propagator = TraceContextTextMapPropagator()


_trace_here: "ContextVar[RequestTrace | None]" = ContextVar("claimsvc_request_trace", default=None)


class Untraced:
    """`http.server.observers.RequestTrace` of a request that is not traced."""

    trace_id: str | None = None

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...

    def answered(self, status: int, fields: Mapping[str, object]) -> None: ...


class RequestTrace(Untraced):
    """`http.server.observers.RequestTrace`. Without a span it only carries the id of its caller's trace."""

    def __init__(self, span: Span | None, trace_id: str) -> None:
        self.trace_id = trace_id
        self._span = span
        self._entered: tuple[Token[RequestTrace | None], Token[Span | None]]

    def __enter__(self) -> None:
        self._entered = _trace_here.set(self), span_here.set(self._span)

    def __exit__(self, *_: object) -> None:
        trace_before, span_before = self._entered
        _trace_here.reset(trace_before)
        span_here.reset(span_before)

    def answered(self, status: int, fields: Mapping[str, object]) -> None:
        span, self._span = self._span, None
        if span is None:
            return
        span.set_attribute("http.response.status_code", status)
        for name, value in fields.items():
            if isinstance(value, (str, float)) and name != "trace_id":
                span.set_attribute(f"claimsvc.{name}", value)
        if status >= 500:
            span.set_attribute("error.type", str(fields.get("outcome", status)))
            span.set_status(StatusCode.ERROR)
        span.end()


_UNTRACED = Untraced()


class RequestTracer:
    """`http.server.observers.RequestTracer`: creates a server span for each claim, up to a rate.

    A caller's trace is continued if it is sampled. If it is not sampled, the claim is not traced.

    Args:
        tracer: creates the spans.
        traces_per_second: most claims that are traced each second, including continued traces. A trace costs about as
            much as a claim, so a flood of claims must not become a flood of traces.
    """

    def __init__(self, tracer: Tracer, traces_per_second: int) -> None:
        self._tracer = tracer
        self._traces_per_second = traces_per_second
        self._second_ends = 0.0
        self._started = 0

    def begin(self, method: str, route: str, headers: Mapping[str, str]) -> Untraced:
        context, trace_id, wanted = Context(), None, True
        if "traceparent" in headers:
            context = _propagator.extract(headers, context)
            caller = get_current_span(context)
            if caller.get_span_context().is_valid:
                trace_id, wanted = trace_id_of(caller), caller.get_span_context().trace_flags.sampled
        if not (wanted and self._may_begin()):
            return _UNTRACED if trace_id is None else RequestTrace(None, trace_id)
        attributes: dict[str, AttributeValue] = {"http.request.method": method, "http.route": route, "url.path": route}
        span = self._tracer.start_span(f"{method} {route}", context, SpanKind.SERVER, attributes)
        return RequestTrace(span, trace_id_of(span))

    def current(self) -> RequestTrace | None:
        return _trace_here.get()

    def _may_begin(self) -> bool:
        now = time.monotonic()
        if now >= self._second_ends:
            self._second_ends, self._started = now + 1.0, 0
        self._started += 1
        return self._started <= self._traces_per_second
