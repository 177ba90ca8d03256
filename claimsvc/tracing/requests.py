"""The server span of each claim, and which claims have one."""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from contextvars import ContextVar
from types import TracebackType

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from claimsvc.tracing.spans import trace_id_of, within

_propagator = TraceContextTextMapPropagator()


class RequestTrace:
    """`api.RequestTrace`. Without a span it only names the trace that its caller has, if that has one."""

    def __init__(self, current: "ContextVar[RequestTrace | None]", span: Span | None, trace_id: str | None) -> None:
        self.trace_id = trace_id
        self._current = current
        self._span = span
        self._entered = ExitStack()

    def __enter__(self) -> None:
        token = self._current.set(self)
        self._entered.callback(self._current.reset, token)
        self._entered.enter_context(within(self._span))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._entered.close()

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


class RequestTracer:
    """`api.RequestTracer`: a server span for each claim, as long as there are few enough.

    A caller's trace is continued if it is sampled, and no other is begun if it is not.

    Args:
        traces_per_second: how many claims are traced each second, whoever asks for it: a trace costs about as much as a
            claim does, and a flood of claims must not become a flood of traces.
    """

    def __init__(self, tracer: Tracer, traces_per_second: int) -> None:
        self._tracer = tracer
        self._traces_per_second = traces_per_second
        self._second_ends = 0.0
        self._begun = 0
        self._current: ContextVar[RequestTrace | None] = ContextVar("claimsvc_request_trace", default=None)

    def begin(self, method: str, route: str, headers: Mapping[str, str]) -> RequestTrace:
        context, trace_id, wanted = Context(), None, True
        if "traceparent" in headers:
            context = _propagator.extract(headers, context)
            caller = get_current_span(context)
            if caller.get_span_context().is_valid:
                trace_id, wanted = trace_id_of(caller), caller.get_span_context().trace_flags.sampled
        if not (wanted and self._may_begin()):
            return RequestTrace(self._current, None, trace_id)
        attributes: dict[str, AttributeValue] = {"http.request.method": method, "http.route": route, "url.path": route}
        span = self._tracer.start_span(f"{method} {route}", context, SpanKind.SERVER, attributes)
        return RequestTrace(self._current, span, trace_id_of(span))

    def current(self) -> RequestTrace | None:
        return self._current.get()

    def _may_begin(self) -> bool:
        now = time.monotonic()
        if now >= self._second_ends:
            self._second_ends, self._begun = now + 1.0, 0
        self._begun += 1
        return self._begun <= self._traces_per_second
