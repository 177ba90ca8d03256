"""Conversations taken apart into units: what a client asks, one by one, and which answer belongs to which question.

Enough of RESP (https://redis.io/docs/latest/develop/reference/protocol-spec/), of PostgreSQL's protocol 3
(https://www.postgresql.org/docs/current/protocol-message-formats.html) and of HTTP/1.1 to count exactly.
"""

import re
import struct
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass, field
from hashlib import sha1
from importlib.resources import files


@dataclass(slots=True, eq=False)
class Request:
    """One question. `kind` says which, for people and for counting."""

    kind: str
    raw: bytes
    answered: bool = True


@dataclass(frozen=True, slots=True)
class Reply:
    """A piece of an answer; `ended` are the requests whose answers are complete with it, `of` whose it is."""

    raw: bytes
    of: Request | None
    ended: tuple[Request, ...] = ()


class Conversation(ABC):
    """One connection, as seen from between its two ends."""

    def __init__(self) -> None:
        self._asked = b""
        self._told = b""
        self.pending: deque[Request] = deque()

    def requests(self, data: bytes) -> list[Request]:
        """The requests that are complete with `data`."""
        self._asked += data
        found: list[Request] = []
        while self._asked and (length := self._request_length(self._asked)):
            raw, self._asked = self._asked[:length], self._asked[length:]
            found.append(self._request(raw))
        return found

    def forwarded(self, request: Request) -> None:
        """The server is about to be asked this."""
        if request.answered:
            self.pending.append(request)

    def replies(self, data: bytes) -> list[Reply]:
        """The pieces of answers that are complete with `data`."""
        self._told += data
        found: list[Reply] = []
        while self._told and (length := self._reply_length(self._told)):
            raw, self._told = self._told[:length], self._told[length:]
            found.append(self._reply(raw))
        return found

    def failing(self, request: Request) -> Request | None:
        """What to ask instead, for the server to refuse it; None where nothing does."""
        return None

    def failure(self, request: Request) -> tuple[bytes, bool]:
        """An answer that refuses the request in the server's own way, and whether the conversation ends with it."""
        return b"", True

    def disguised(self, reply: Reply) -> bytes:
        """What the client is told of the answer to `failing`."""
        return reply.raw

    @abstractmethod
    def _request_length(self, data: bytes) -> int: ...

    @abstractmethod
    def _request(self, raw: bytes) -> Request: ...

    @abstractmethod
    def _reply_length(self, data: bytes) -> int: ...

    @abstractmethod
    def _reply(self, raw: bytes) -> Reply: ...


_SCRIPTS = {
    sha1(script.read_bytes(), usedforsecurity=False).hexdigest(): script.name.removesuffix(".lua")
    for script in files("claimsvc.redis").joinpath("lua").iterdir()
    if script.name.endswith(".lua")
}


class RedisConversation(Conversation):
    """Commands, each with one answer, in order."""

    def _request_length(self, data: bytes) -> int:
        return resp_length(data)

    def _request(self, raw: bytes) -> Request:
        words = raw.split(b"\r\n")[2::2]
        kind = words[0].decode().upper()
        if kind == "EVALSHA":
            kind += f" {_SCRIPTS.get(words[1].decode(), '?')}"
        elif kind == "CLIENT":
            kind += f" {words[1].decode().upper()}"
        return Request(kind, raw)

    def _reply_length(self, data: bytes) -> int:
        return resp_length(data)

    def _reply(self, raw: bytes) -> Reply:
        if raw.startswith(b">") or not self.pending:  # pushed, not asked for
            return Reply(raw, None)
        of = self.pending.popleft()
        return Reply(raw, of, (of,))

    def failure(self, request: Request) -> tuple[bytes, bool]:
        return b"-OOM command not allowed when used memory > 'maxmemory'.\r\n", False


def resp_length(data: bytes, start: int = 0) -> int:
    """Where the value that begins at `start` ends; 0 if it is not complete."""
    line_end = data.find(b"\r\n", start)
    if line_end < 0:
        return 0
    kind, head, end = data[start : start + 1], data[start + 1 : line_end], line_end + 2
    if kind in b"$!=":
        if int(head) >= 0:
            end += int(head) + 2
        return end if len(data) >= end else 0
    if kind in b"*~>%|":
        for _ in range(int(head) * (2 if kind in b"%|" else 1)):
            end = resp_length(data, end)
            if not end:
                return 0
        if kind == b"|":  # attributes of the value that follows
            return resp_length(data, end)
    return end


_SSL, _GSS, _CANCEL = 80877103, 80877104, 80877102
_EXTENDED = {b"P": "Parse", b"B": "Bind", b"C": "Close", b"D": "Describe", b"E": "Execute"}
_UNANSWERED = {b"H": "Flush", b"X": "Terminate", b"d": "CopyData", b"c": "CopyDone", b"f": "CopyFail"}
_ENDS = {
    "Parse": b"1E",
    "Bind": b"2E",
    "Close": b"3E",
    "Describe": b"TnE",
    "Execute": b"CIsE",
    "Sync": b"Z",
    "Query": b"Z",
    "Startup": b"Z",
    "Password": b"Z",
}
# The server asks for a password, or for more of it: the next word is the client's.
_AUTHENTICATION_CONTINUES = {3, 5, 7, 8, 10, 11}
_NO_SUCH_STATEMENT = b"B" + struct.pack("!i", 4 + 1 + 8 + 6) + b"\0no_such\0" + b"\0" * 6


@dataclass(slots=True)
class _Names:
    """Which statement a prepared one or a portal stands for."""

    statements: dict[bytes, str] = field(default_factory=dict)
    portals: dict[bytes, str] = field(default_factory=dict)


class PostgresConversation(Conversation):
    """Messages of the extended protocol answer one by one, those of the simple one with all they have."""

    def __init__(self) -> None:
        super().__init__()
        self._started = False
        self._names = _Names()
        self._failed: Request | None = None

    def _request_length(self, data: bytes) -> int:
        at = 1 if self._started else 0
        if len(data) < at + 4:
            return 0
        length = at + int.from_bytes(data[at : at + 4])
        return length if len(data) >= length else 0

    def _request(self, raw: bytes) -> Request:
        if not self._started:
            code = int.from_bytes(raw[4:8])
            self._started = code not in {_SSL, _GSS, _CANCEL}
            kind = {_SSL: "SSLRequest", _GSS: "GSSENCRequest", _CANCEL: "CancelRequest"}.get(code, "Startup")
            return Request(kind, raw, answered=code != _CANCEL)
        letter, body = raw[:1], raw[5:]
        if letter in _UNANSWERED:
            return Request(_UNANSWERED[letter], raw, answered=False)
        if letter in _EXTENDED:
            return Request(f"{_EXTENDED[letter]} {self._statement(letter, body)}".rstrip(), raw)
        if letter == b"Q":
            return Request(f"Query {_short(body[:-1])}", raw)
        return Request({b"S": "Sync", b"p": "Password"}.get(letter, f"message {letter!r}"), raw)

    def _statement(self, letter: bytes, body: bytes) -> str:
        names, (first, rest) = self._names, body.split(b"\0", 1)
        if letter == b"P":
            names.statements[first] = _short(rest.split(b"\0", 1)[0])
            return names.statements[first]
        if letter == b"B":
            names.portals[first] = names.statements.get(rest.split(b"\0", 1)[0], "?")
            return names.portals[first]
        if letter == b"E":
            return names.portals.get(first, "?")
        known = names.statements if first[:1] == b"S" else names.portals
        return known.get(first[1:], "?")

    def _reply_length(self, data: bytes) -> int:
        if self.pending and self.pending[0].kind in {"SSLRequest", "GSSENCRequest"}:
            return 1
        if len(data) < 5:
            return 0
        length = 1 + int.from_bytes(data[1:5])
        return length if len(data) >= length else 0

    def _reply(self, raw: bytes) -> Reply:
        letter = raw[:1]
        if not self.pending or (letter in b"AN" and len(raw) > 1):
            return Reply(raw, None)
        of = self.pending[0]
        verb = of.kind.split(" ", 1)[0]
        if letter == b"Z" and len(raw) > 1:
            # Whatever was asked before the Sync that is answered here was skipped because of an error.
            ended = []
            while self.pending:
                ended.append(self.pending.popleft())
                if _ENDS.get(ended[-1].kind.split(" ", 1)[0]) == b"Z":
                    break
            return Reply(raw, ended[-1], tuple(ended))
        continues = verb in {"Startup", "Password"} and letter == b"R"
        if len(raw) == 1 or letter in _ENDS.get(verb, b"") or (continues and _asks_for_more(raw)):
            self.pending.popleft()
            return Reply(raw, of, (of,))
        return Reply(raw, of)

    def failing(self, request: Request) -> Request | None:
        verb = request.kind.split(" ", 1)[0]
        if verb in _EXTENDED.values():
            return Request(request.kind, _NO_SUCH_STATEMENT)
        if verb == "Query":
            # A COMMIT that fails has rolled back.
            undo = b"ROLLBACK; " if "COMMIT" in request.kind.upper() else b""
            text = undo + b"DO $$ BEGIN RAISE 'refused'; END $$\0"
            return Request(request.kind, b"Q" + struct.pack("!i", 4 + len(text)) + text)
        return None

    def failure(self, request: Request) -> tuple[bytes, bool]:
        return _error(b"FATAL", b"57P01", b"terminating connection due to administrator command"), True

    def disguised(self, reply: Reply) -> bytes:
        if reply.raw[:1] == b"E":
            return _error(b"ERROR", b"57014", b"canceling statement due to statement timeout")
        return b"" if reply.raw[:1] == b"C" else reply.raw


def _asks_for_more(authentication: bytes) -> bool:
    return int.from_bytes(authentication[5:9]) in _AUTHENTICATION_CONTINUES


def _error(severity: bytes, code: bytes, text: bytes) -> bytes:
    fields = b"S" + severity + b"\0V" + severity + b"\0C" + code + b"\0M" + text + b"\0\0"
    return b"E" + struct.pack("!i", 4 + len(fields)) + fields


def _short(statement: bytes) -> str:
    """The statement's first words, enough to know it by."""
    return " ".join(re.sub(r"--.*", "", statement.decode()).split()[:4])


class HttpConversation(Conversation):
    """One request on a connection, and its answer."""

    def _request_length(self, data: bytes) -> int:
        return _http_length(data)

    def _request(self, raw: bytes) -> Request:
        return Request("HTTP " + raw.split(b"\r\n", 1)[0].rsplit(b" ", 1)[0].decode(), raw)

    def _reply_length(self, data: bytes) -> int:
        return _http_length(data)

    def _reply(self, raw: bytes) -> Reply:
        of = self.pending.popleft()
        return Reply(raw, of, (of,))


def _http_length(data: bytes) -> int:
    head, found, rest = data.partition(b"\r\n\r\n")
    if not found:
        return 0
    declared = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    body = int(declared[1]) if declared else 0
    return len(head) + 4 + body if len(rest) >= body else 0
