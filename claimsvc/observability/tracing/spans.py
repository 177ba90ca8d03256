"""The current span, and functions that open spans within it.

OpenTelemetry's own context is not used. A task that leads queues is created by the claim that arrives first, and would
keep that claim's span as its context. The context variable here is set explicitly instead, also to None.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, Tracer, set_span_in_context
from opentelemetry.util.types import AttributeValue

span_here: ContextVar[Span | None] = ContextVar("claimsvc_span", default=None)
"""The current span; None if the current work is not traced."""


def trace_id_here() -> str | None:
    """Return the id of the current trace, in the format of `traceparent`; None if the current work is not traced."""
    span = span_here.get()
    return None if span is None else trace_id_of(span)


def trace_id_of(span: Span) -> str:
    return f"{span.get_span_context().trace_id:032x}"


@contextmanager
def within(span: Span | None) -> Iterator[None]:
    """Make a span, or None, the current one while the context is active."""
    token = span_here.set(span)
    try:
        yield
    finally:
        span_here.reset(token)


def begin(
    tracer: Tracer,
    name: str,
    parent: Span | None,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    attributes: Mapping[str, AttributeValue] | None = None,
    links: Sequence[Link] = (),
) -> Span:
    """Start a span. The caller must end it.

    Args:
        tracer: creates the span.
        name: of the span.
        parent: None for the root of a new trace.
        kind: of the span.
        attributes: of the span.
        links: to other spans.
    """
    context = Context() if parent is None else set_span_in_context(parent, Context())
    return tracer.start_span(name, context, kind, attributes, links)


@contextmanager
def step(
    tracer: Tracer,
    name: str,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    attributes: Mapping[str, AttributeValue] | None = None,
) -> Iterator[Span | None]:
    """Open a child of the current span while the context is active, and record an error that ends it.

    Yields None, without a span, if the current work is not traced.
    """
    parent = span_here.get()
    if parent is None:
        yield None
        return
    span = begin(tracer, name, parent, kind=kind, attributes=attributes)
    try:
        with within(span):
            yield span
    except BaseException as error:
        failed(span, error)
        raise
    finally:
        span.end()


def failed(span: Span, error: BaseException) -> None:
    """Record an error on a span. Only texts of this service: messages of a driver may contain private data."""
    span.set_attribute("error.type", type(error).__name__)
    span.set_status(StatusCode.ERROR, getattr(error, "detail", None))
