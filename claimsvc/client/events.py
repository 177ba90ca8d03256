"""Parses server-sent events (WHATWG HTML, section 9.2), as they arrive in chunks."""

from collections.abc import Iterator
from dataclasses import dataclass

# Far more than a ticket has.
_LONGEST_EVENT_BYTES = 1024 * 1024
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `id` is that of the last event that had one; empty if none had."""

    name: str
    data: bytes
    id: str


class EventParser:
    """Parses one stream. An event that was cut, because no blank line follows, is left out."""

    def __init__(self) -> None:
        self._rest = b""
        self._is_start = True
        self._name = ""
        self._data = bytearray()
        self._last_id = ""

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Return the events that end in this chunk.

        Args:
            chunk: the next bytes of the stream, which may be divided anyhow.

        Raises:
            ValueError: an event is longer than a megabyte.
        """
        for line in self._lines(chunk):
            if line:
                self._take(line)
            else:
                if self._data:
                    yield Event(self._name or "message", bytes(self._data[:-1]), self._last_id)
                self._name = ""
                self._data.clear()
        if len(self._rest) + len(self._data) > _LONGEST_EVENT_BYTES:
            raise ValueError(f"an event is longer than {_LONGEST_EVENT_BYTES} bytes")

    def _lines(self, chunk: bytes) -> list[bytes]:
        """The lines that end in this chunk; each ends with CRLF, LF or CR."""
        text = self._rest + chunk
        if self._is_start and len(text) >= len(_BYTE_ORDER_MARK):
            text, self._is_start = text.removeprefix(_BYTE_ORDER_MARK), False
        # A CR at the end may be half of a CRLF.
        whole, kept = (text[:-1], b"\r") if text.endswith(b"\r") else (text, b"")
        *lines, unfinished = whole.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._rest = unfinished + kept
        return lines

    def _take(self, line: bytes) -> None:
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data += value + b"\n"
        elif field == b"event":
            self._name = value.decode("utf-8", "replace")
        elif field == b"id" and b"\0" not in value:
            self._last_id = value.decode("utf-8", "replace")
