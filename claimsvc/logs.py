"""Logging: one line per event on stderr, in colour on a terminal and as JSON elsewhere.

The service's own lines go from structlog directly to stderr: there is one for each request, and the standard library's
logging would cost several times as much as the request. Lines that libraries log get the same format.
"""

import asyncio
import atexit
import json
import logging
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

import orjson
import structlog

REQUESTS = "claimsvc.http"
"""The logger with one line per request."""

# Lines below `warning` are buffered for up to this time and written together.
_FLUSH_SECONDS = 0.05
# Libraries that warn about what clients send, and repeat it: any client could write lines here, as many as it likes.
_REPEATING_CLIENTS = ("opentelemetry.trace",)
# A pipe takes writes of this size atomically (PIPE_BUF on Linux), so that lines of several workers are not mixed.
_ATOMIC_WRITE_BYTES = 4096


class _BufferedStderr:
    """A buffer for lines to stderr. A write costs as much as formatting a line; under load one write serves many."""

    def __init__(self) -> None:
        self._waiting: list[bytes] = []
        atexit.register(self.flush)

    def write_soon(self, line: bytes) -> None:
        self._waiting.append(line)
        if len(self._waiting) == 1:
            try:
                asyncio.get_running_loop().call_later(_FLUSH_SECONDS, self.flush)
            except RuntimeError:  # no event loop is running that could flush it later
                self.flush()

    def write_now(self, line: bytes) -> None:
        self._waiting.append(line)
        self.flush()

    def flush(self) -> None:
        lines, self._waiting = self._waiting, []
        piece = bytearray()
        for line in lines:
            if piece and len(piece) + len(line) >= _ATOMIC_WRITE_BYTES:
                _write(piece)
                piece.clear()
            piece += line
            piece += b"\n"
        if piece:
            _write(piece)


def _write(piece: bytearray) -> None:
    sys.stderr.buffer.write(piece)
    sys.stderr.buffer.flush()


class _Logger:
    """Receives formatted lines from structlog. A warning is written immediately, with the lines before it.

    Warnings about requests are buffered: during an outage there is one for each request.
    """

    def __init__(self, lines: _BufferedStderr, name: str | None = None) -> None:
        self.name = name
        self.debug = self.info = lines.write_soon
        self.warning = lines.write_soon if name == REQUESTS else lines.write_now
        self.error = self.exception = self.critical = lines.write_now


def configure(level: str, log_format: str) -> None:
    """Send all log lines to stderr.

    Args:
        level: the least severe level shown: `debug`, `info`, `warning` or `error`.
        log_format: `json`, `console`, or `auto`, which is `console` on a terminal and `json` elsewhere.
    """
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
    ]
    rendering: list[structlog.typing.Processor]
    processors: list[structlog.typing.Processor]
    if console:
        stamp = structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False)
        # The default traceback shows variables, which may contain keys and tokens.
        plain = structlog.dev.plain_traceback
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), sort_keys=False, exception_formatter=plain)
        rendering = [stamp, renderer, _encode]
        processors = [*shared, *rendering]
    else:
        rendering = [structlog.processors.format_exc_info, _to_json]
        processors = [_own_to_json]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=partial(_Logger, _BufferedStderr()),
        cache_logger_on_first_use=True,
    )
    _configure_standard_library(level, shared, rendering)


def _configure_standard_library(
    level: str, shared: list[structlog.typing.Processor], rendering: list[structlog.typing.Processor]
) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering, _decode],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in _REPEATING_CLIENTS:
        logging.getLogger(name).setLevel(logging.ERROR)


def _to_json(_: Any, __: str, event: MutableMapping[str, Any]) -> bytes:
    # JSON escapes line breaks and control characters, so one event is one line whatever a client sent.
    event["timestamp"] = datetime.now(UTC)
    try:
        return orjson.dumps(event, default=repr, option=orjson.OPT_UTC_Z)
    except TypeError:
        # A header that is not UTF-8 is a string with lone surrogates; no line is lost for it.
        event["timestamp"] = event["timestamp"].isoformat().replace("+00:00", "Z")
        return json.dumps(event, default=repr).encode()


def _own_to_json(logger: _Logger, method: str, event: MutableMapping[str, Any]) -> bytes:
    # Does the work of the four processors of other lines in one call.
    event["level"] = "error" if method == "exception" else method
    event["logger"] = logger.name
    if "exc_info" in event:
        event = structlog.processors.format_exc_info(logger, method, event)
    return _to_json(logger, method, event)


def _encode(_: Any, __: str, line: Any) -> bytes:
    return str(line).encode("utf-8", "backslashreplace")


def _decode(_: Any, __: str, line: Any) -> str:
    return bytes(line).decode()
