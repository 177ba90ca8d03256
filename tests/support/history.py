"""What was asked, and what was answered: one line for each invocation before it is sent, and one at its end.

The file is NDJSON. A line with `start` begins an invocation, the line with the same `id` and `end` ends it; one
without an end never got an answer. Moments are nanoseconds of one monotonic clock.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

import orjson

CLAIM = "claim"
READ = "read"
JOIN = "join"
POLL = "poll"
LEAVE = "leave"

SOLD_OUT = "sold-out"
ALREADY_CLAIMED = "already-claimed"
LOCK_BUSY = "lock-busy"
QUEUE_FULL = "queue-full"
TICKET_STARTED = "ticket-started"
UNAVAILABLE = "unavailable"

_FLUSH_LINES = 512
_DECIDED = {CLAIM: (201, 409), JOIN: (202, 409, 429)}


@dataclass(slots=True)
class Invocation:
    """One request and its end.

    Args:
        id: unique in its history.
        process: the client that asked; one client asks one thing at a time.
        operation: `claim`, or `read` of a coupon; `join` its queue, `poll` a ticket, or `leave` with it.
        coupon, user: of whom and what; a read has no user.
        instance: the name of the instance that was asked.
        start, end: monotonic nanoseconds; `end` is 0 while there is no answer.
        status: of the answer; 0 if there was none.
        problem: the slug of the answer's problem type; without an answer what was seen instead: `refused` (no
            connection), `reset` or `closed-unread` (the connection ended before the request was read), `closed` (it
            ended after that), `timeout`, `hung-up` (by us), or `garbled`.
        claim: the id of the claim that came with it.
        remaining, claimants: what a read showed: `remaining_amount`, and how many were in `claimed_by`.
        has_retry_after: whether the answer had that header.
        ticket: the id of the ticket that was asked for, or that came with the answer.
        state, position, stopped: what the answer said of it; -1 for a position that it has not.
    """

    id: int
    process: str
    operation: str
    coupon: str
    user: str
    instance: str
    start: int
    end: int = 0
    status: int = 0
    problem: str = ""
    claim: str = ""
    remaining: int = -1
    claimants: int = -1
    has_retry_after: bool = False
    ticket: str = ""
    state: str = ""
    position: int = -1
    stopped: str = ""

    @property
    def is_unknown(self) -> bool:
        """Whether it may have had an effect that its client was not told of: no answer, or any 5xx."""
        return self.status == 0 or self.status >= 500

    @property
    def is_acknowledged(self) -> bool:
        """Whether the client was told that its claim is made."""
        return self.operation == CLAIM and self.status == 201

    @property
    def is_definite(self) -> bool:
        """Whether a claim was decided: made, or refused for a reason that the database knows; or it waits."""
        return self.status in _DECIDED.get(self.operation, ())

    @property
    def is_joined(self) -> bool:
        """Whether the client was told that its claim waits."""
        return self.operation == JOIN and self.status == 202


_BEGINNING = ("id", "process", "operation", "coupon", "user", "instance", "start", "ticket")
_END = tuple(field.name for field in fields(Invocation) if field.name not in _BEGINNING[:-1])


class History:
    """Records invocations, in memory for the checks and in a file for whoever wants to know later.

    Args:
        path: where the lines go; None keeps them in memory only.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.invocations: list[Invocation] = []
        self.acknowledged = 0
        self.definite = 0
        self.joined = 0
        self.path = path
        self._ids = count(1)
        self._file = path.open("wb") if path is not None else None
        self._lines: list[bytes] = []

    def begin(
        self, process: str, operation: str, coupon: str, user: str, instance: str, ticket: str = ""
    ) -> Invocation:
        """Note what is about to be sent."""
        made = Invocation(
            next(self._ids), process, operation, coupon, user, instance, time.monotonic_ns(), ticket=ticket
        )
        self.invocations.append(made)
        self._write({name: getattr(made, name) for name in _BEGINNING})
        return made

    def end(self, invocation: Invocation, status: int, problem: str = "", claim: str = "") -> None:
        """Note how it ended, and when: now. Set what a read showed before."""
        invocation.end = time.monotonic_ns()
        invocation.status, invocation.problem, invocation.claim = status, problem, claim
        self.acknowledged += invocation.is_acknowledged
        self.definite += invocation.is_definite
        self.joined += invocation.is_joined
        self._write({"id": invocation.id} | {name: getattr(invocation, name) for name in _END})

    def _write(self, line: dict[str, object]) -> None:
        if self._file is None:
            return
        # In the process's memory is early enough: what is to be killed is another process.
        self._lines.append(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
        if len(self._lines) >= _FLUSH_LINES:
            self.flush()

    def flush(self) -> None:
        if self._file is not None:
            self._file.writelines(self._lines)
            self._file.flush()
            self._lines.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.flush()
        if self._file is not None:
            self._file.close()
            self._file = None


def read_history(path: Path) -> list[Invocation]:
    """The invocations that a file tells of, in the order of their beginnings."""
    return list(_read(path))


def _read(path: Path) -> Iterator[Invocation]:
    found: dict[int, Invocation] = {}
    with path.open("rb") as lines:
        for line in lines:
            told = orjson.loads(line)
            if "start" in told:
                found[told["id"]] = Invocation(**told)
            else:
                for name in _END:
                    setattr(found[told["id"]], name, told[name])
    yield from found.values()
