"""Spans of ours: which is open here, and how one is opened within it.

OpenTelemetry's own context is left alone. Tasks that lead queues are begun by whoever happens to claim first, and
would inherit its span for good; ours is set where it is true, and to nothing where there is none.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, Tracer, set_span_in_context
from opentelemetry.util.types import AttributeValue

span_here: ContextVar[Span | None] = ContextVar("claimsvc_span", default=None)
"""What is done here belongs to it; None if that is not traced."""


def trace_id_here() -> str | None:
    """The trace of what is done here, as it is written in `traceparent`."""
    span = span_here.get()
    return None if span is None else trace_id_of(span)


def trace_id_of(span: Span) -> str:
    return f"{span.get_span_context().trace_id:032x}"


@contextmanager
def within(span: Span | None) -> Iterator[None]:
    """What is done here belongs to this span, or to none."""
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
    """Open a span; it has to be ended."""
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
    """One step of what is traced here, with the error that ends it; nothing where nothing is traced."""
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
    """Say on a span that this went wrong. Only our own words: a driver's may name what nobody else is to see."""
    span.set_attribute("error.type", type(error).__name__)
    span.set_status(StatusCode.ERROR, getattr(error, "detail", None))
