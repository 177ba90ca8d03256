"""The tasks of one service in this event loop: which there are, where they wait, and cancelling them just there."""

import asyncio
from collections.abc import Coroutine, Generator
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from weakref import WeakSet

# The HTTP server's own, and no part of a claim: taking a connection from the kernel, and waiting for its requests.
_THE_HTTP_SERVERS = {"BaseSelectorEventLoop._accept_connection2", "RequestHandler.start"}
# Those that wait for an answer in order to pass it on.
_CALLERS = ("_handle_request", "claim")


class AwaitMode(StrEnum):
    """When a task is cancelled at one of its awaits."""

    CANCEL_WAITING = "cancel waiting"
    """As soon as it waits."""
    CANCEL_RESUMING = "cancel resuming"
    """When what it waits for has come and it is about to go on."""


@dataclass(frozen=True, slots=True)
class Await:
    """The `ordinal`-th time that some task of the service waits, during one run."""

    ordinal: int
    place: str = ""

    def __str__(self) -> str:
        return f"await {self.ordinal} {self.place}".rstrip()


class Work:
    """What the service does for the claims of one run: the tasks that were begun while it was recorded."""

    def __init__(self) -> None:
        self.counted: list[Await] = []
        self.fired = False
        self._tasks: WeakSet[asyncio.Task[Any]] = WeakSet()
        self._recording = False
        self._at: int | None = None
        self._mode = AwaitMode.CANCEL_WAITING

    def begin(self, at: Await | None = None, mode: AwaitMode = AwaitMode.CANCEL_WAITING) -> None:
        self.counted, self.fired, self._at, self._mode = [], False, at.ordinal if at else None, mode
        self._tasks.clear()
        self._recording = True

    def end(self) -> None:
        self._recording = False

    def open_tasks(self) -> "list[asyncio.Task[Any]]":
        return [task for task in self._tasks if not task.done()]

    def cancel(self, *, callers_only: bool) -> None:
        for task in self.open_tasks():
            name = _name(task.get_coro())
            if name not in _THE_HTTP_SERVERS and (not callers_only or any(word in name for word in _CALLERS)):
                task.cancel()

    def begun(self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **options: Any) -> Any:
        if not self._recording:
            return asyncio.Task(work, loop=loop, **options)
        is_stepped = _name(work) not in _THE_HTTP_SERVERS
        task = asyncio.Task(_Stepped(work, self) if is_stepped else work, loop=loop, **options)
        self._tasks.add(task)
        return task

    def waits(self, on: Any, inside: Coroutine[Any, Any, Any]) -> None:
        """The current task is about to wait for `on`."""
        task = asyncio.current_task()
        if not self._recording or task is None:
            return
        self.counted.append(Await(len(self.counted) + 1, _place(inside) if self._at is None else ""))
        if len(self.counted) != self._at:
            return
        self.fired = True
        if self._mode is AwaitMode.CANCEL_WAITING:
            task.cancel()
        elif on is None:  # it only lets others run
            asyncio.get_running_loop().call_soon(task.cancel)
        else:
            on.add_done_callback(lambda _: task.cancel())


class _Stepped(Coroutine[Any, Any, Any]):
    """A coroutine that says when it waits."""

    def __init__(self, inner: Coroutine[Any, Any, Any], work: Work) -> None:
        self._inner = inner
        self._work = work

    def send(self, value: Any) -> Any:
        awaited = self._inner.send(value)
        self._work.waits(awaited, self._inner)
        return awaited

    def throw(self, *error: Any) -> Any:
        awaited = self._inner.throw(*error)
        self._work.waits(awaited, self._inner)
        return awaited

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._inner.__await__()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


_work_here: ContextVar[Work | None] = ContextVar("work_here", default=None)


def _make_task(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> Any:
    context = options.get("context")
    here = _work_here.get() if context is None else context.get(_work_here)
    return asyncio.Task(work, loop=loop, **options) if here is None else here.begun(loop, work, **options)


def watch_tasks_of(work: Work) -> None:
    """From here on the tasks that this context begins, and all that they begin, are `work`'s."""
    asyncio.get_running_loop().set_task_factory(_make_task)
    _work_here.set(work)


def _name(work: Any) -> str:
    return str(getattr(work, "__qualname__", ""))


def _place(work: Any) -> str:
    """Whose task waits and where, as far as that is the service's own code."""
    place, inner = _name(work), work
    while inner is not None:
        frame = getattr(inner, "cr_frame", None) or getattr(inner, "gi_frame", None)
        if frame is not None and "/claimsvc/" in frame.f_code.co_filename:
            file = frame.f_code.co_filename.rsplit("/claimsvc/", 1)[1]
            place = f"{_name(work)}: {file}:{frame.f_lineno} {_name(inner)}"
        inner = getattr(inner, "cr_await", None) or getattr(inner, "gi_yieldfrom", None)
    return place
