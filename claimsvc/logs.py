"""Logging: one event, one line on stderr; colours for people on a terminal, JSON for everybody else.

Our own lines go straight from structlog to stderr, because there is one for each request and the standard library's
way costs several times the request itself. What libraries log by the standard library comes out in the same shape.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import orjson
import structlog


class _NamedLogger(structlog.BytesLogger):
    """Writes a line at once, so that the last one before a crash is there to be read."""

    def __init__(self, name: str | None = None) -> None:
        super().__init__(sys.stderr.buffer)
        self.name = name


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
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    rendering: list[structlog.typing.Processor]
    if console:
        rendering = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()), _encode]
    else:
        rendering = [structlog.processors.format_exc_info, _to_json]
    structlog.configure(
        processors=[*shared, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_NamedLogger,
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
    return orjson.dumps(event, default=repr)


def _encode(_: Any, __: str, line: Any) -> bytes:
    return str(line).encode("utf-8", "backslashreplace")


def _decode(_: Any, __: str, line: Any) -> str:
    return bytes(line).decode()
