"""A collector on this machine that takes OTLP over HTTP, and keeps what it gets."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1 import trace_pb2

_DEADLINE_SECONDS = 20.0


@dataclass(frozen=True)
class Span:
    """One span as it arrived; ids in hex, times in nanoseconds."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: str
    failed: bool
    message: str
    attributes: dict[str, Any]
    links: dict[str, str]
    """What each linked span is to this one, by the linked span's id."""
    began: int
    ended: int
    service: str


class Collector:
    """What has arrived so far."""

    def __init__(self) -> None:
        self.url = ""
        self._spans: list[Span] = []

    def add(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = _values(resource.resource.attributes).get("service.name", "")
            for scope in resource.scope_spans:
                self._spans += [_span(each, service) for each in scope.spans]

    def spans(self, name: str | None = None) -> list[Span]:
        """In the order of their beginning."""
        return sorted((each for each in self._spans if name in (None, each.name)), key=lambda span: span.began)

    def children(self, parent: Span, name: str | None = None) -> list[Span]:
        return [each for each in self.spans(name) if each.parent_id == parent.span_id]

    def eventually(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"did not happen in time; {self.spans()}"
            time.sleep(0.02)


def _values(attributes: Sequence[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for attribute in attributes:
        kind = attribute.value.WhichOneof("value")
        value = getattr(attribute.value, kind)
        found[attribute.key] = [each.string_value for each in value.values] if kind == "array_value" else value
    return found


def _span(span: trace_pb2.Span, service: str) -> Span:
    return Span(
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        failed=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
        message=span.status.message,
        attributes=_values(span.attributes),
        links={link.span_id.hex(): _values(link.attributes)["claimsvc.link"] for link in span.links},
        began=span.start_time_unix_nano,
        ended=span.end_time_unix_nano,
        service=service,
    )


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that listens until it is left."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            collector.add(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    collector.url = f"http://127.0.0.1:{server.server_port}/v1/traces"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
