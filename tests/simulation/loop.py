"""An event loop on a simulated clock, in which several processes and the world between them take turns.

Every callback belongs to the process in whose context it was planned. Within a process callbacks run in the order in
which they became ready, as asyncio and uvloop promise; which process is next is drawn from the seed. Time stands still
while anybody can run, apart from what running costs, and then jumps to the next timer.
"""

import asyncio
import contextvars
import heapq
import random
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

WORLD = 0
"""The process that stands for all that is outside: network, masters, database, clients. It is never paused."""

_process: contextvars.ContextVar[int] = contextvars.ContextVar("simulated process", default=WORLD)

# More than any sane run takes: one that takes more goes round in circles.
_MOST_TURNS = 200_000


class SimulationStuckError(Exception):
    """Nothing can ever happen again, or the same things happen for ever."""


def current_process() -> int:
    """The process to which what runs now belongs."""
    return _process.get()


def context_of(process: int) -> contextvars.Context:
    """A context whose callbacks and tasks belong to the process."""
    context = contextvars.Context()
    context.run(_process.set, process)
    return context


class SimulatedLoop(asyncio.BaseEventLoop):
    """Runs callbacks of all processes on one simulated clock.

    Args:
        order: decides which process is next.
        callback_seconds: what a callback costs.
    """

    def __init__(self, order: random.Random, *, callback_seconds: float) -> None:
        super().__init__()
        self.now = 1000.0
        self.turns = 0
        self._made = 0
        self.world = context_of(WORLD)
        self._order = order
        self._callback_seconds = callback_seconds
        self._queues: dict[int, deque[asyncio.Handle]] = {}
        self._paused: set[int] = set()
        self._timers: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]

    def time(self) -> float:
        return self.now

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._make_ready(handle)
        return handle

    def in_world(self, seconds: float, callback: Callable[..., object], *args: Any) -> None:
        """Call back later, whatever becomes of the process that asked for it."""
        self.call_at(self.now + seconds, callback, *args, context=self.world)

    def pause(self, process: int) -> None:
        """The process runs no more until it is resumed; its timers wait."""
        self._paused.add(process)

    def resume(self, process: int) -> None:
        self._paused.discard(process)

    def is_paused(self, process: int) -> bool:
        return process in self._paused

    def create_task(  # type: ignore[override]
        self,
        coro: Coroutine[Any, Any, Any],
        *,
        name: object = None,
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[Any]:
        process = _process.get() if context is None else context.get(_process, WORLD)
        self._made += 1
        return asyncio.Task(coro, loop=self, name=f"{process}/{self._made}", context=context)

    def tasks_of(self, process: int) -> list[asyncio.Task[Any]]:
        """The process's tasks that have not ended, in the order of their making."""
        tasks = [task for task in asyncio.all_tasks(self) if task.get_name().startswith(f"{process}/")]
        return sorted(tasks, key=lambda task: int(task.get_name().partition("/")[2]))

    def _make_ready(self, handle: asyncio.Handle) -> None:
        process = handle._context.get(_process, WORLD)  # type: ignore[attr-defined]
        queue = self._queues.get(process)
        if queue is None:
            queue = self._queues[process] = deque()
        queue.append(handle)

    def _run_once(self) -> None:
        """One process's turn: all its callbacks that were ready when it began."""
        runnable = [queue for process, queue in self._queues.items() if queue and process not in self._paused]
        timers = self._timers
        while timers and (timers[0]._cancelled or not runnable or timers[0].when() <= self.now):
            timer = heapq.heappop(timers)
            timer._scheduled = False  # type: ignore[attr-defined]
            if timer._cancelled:
                continue
            self.now = max(self.now, timer.when())
            self._make_ready(timer)
            runnable = [queue for process, queue in self._queues.items() if queue and process not in self._paused]
        self.turns += 1
        if not runnable:
            raise SimulationStuckError("nothing can ever happen again")
        if self.turns > _MOST_TURNS:
            raise SimulationStuckError(f"it goes round in circles: {_MOST_TURNS} turns")
        queue = runnable[0] if len(runnable) == 1 else runnable[self._order.randrange(len(runnable))]
        for _ in range(len(queue)):
            handle = queue.popleft()
            if not handle._cancelled:
                handle._run()
                self.now += self._callback_seconds

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers are dropped when their time comes."""
