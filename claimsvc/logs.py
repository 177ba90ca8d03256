"""Logging: one event, one line on stderr; colours for people on a terminal, JSON for everybody else.

Our own lines go straight from structlog to stderr, because there is one for each request and the standard library's
way costs several times the request itself. What libraries log by the standard library comes out in the same shape.
"""

import asyncio
import atexit
import logging
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

import orjson
import structlog

REQUESTS = "claimsvc.http"
"""The logger that has a line for each request."""

# How long a line below `warning` may wait to be written together with others.
_FLUSH_SECONDS = 0.05
# What a pipe takes in one piece (PIPE_BUF on Linux), so that lines of several workers do not run into each other.
_WHOLE_BYTES = 4096


class _Lines:
    """Lines on their way to stderr. Each write costs as much as the line; under load one serves many."""

    def __init__(self) -> None:
        self._waiting: list[bytes] = []
        atexit.register(self.flush)

    def write_soon(self, line: bytes) -> None:
        self._waiting.append(line)
        if len(self._waiting) == 1:
            try:
                asyncio.get_running_loop().call_later(_FLUSH_SECONDS, self.flush)
            except RuntimeError:  # nothing runs that would flush it later
                self.flush()

    def write_now(self, line: bytes) -> None:
        self._waiting.append(line)
        self.flush()

    def flush(self) -> None:
        lines, self._waiting = self._waiting, []
        piece = bytearray()
        for line in lines:
            if piece and len(piece) + len(line) >= _WHOLE_BYTES:
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
    """What structlog hands finished lines to. A warning is written at once, with all that came before it.

    Except those about requests: while something is down there is one for each of them.
    """

    def __init__(self, lines: _Lines, name: str | None = None) -> None:
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
        # Its own choice of a traceback shows the variables, and keys and tokens with them.
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
        logger_factory=partial(_Logger, _Lines()),
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


def _to_json(_: Any, __: str, event: MutableMapping[str, Any]) -> bytes:
    # JSON escapes line breaks and control characters, so one event is one line whatever a client sent.
    event["timestamp"] = datetime.now(UTC)
    return orjson.dumps(event, default=repr, option=orjson.OPT_UTC_Z)


def _own_to_json(logger: _Logger, method: str, event: MutableMapping[str, Any]) -> bytes:
    # All that the processors of the other lines do, in one call for each line instead of four.
    event["level"] = "error" if method == "exception" else method
    event["logger"] = logger.name
    if "exc_info" in event:
        event = structlog.processors.format_exc_info(logger, method, event)
    return _to_json(logger, method, event)


def _encode(_: Any, __: str, line: Any) -> bytes:
    return str(line).encode("utf-8", "backslashreplace")


def _decode(_: Any, __: str, line: Any) -> str:
    return bytes(line).decode()
