"""Checks signatures of tokens that arrive at the same time together, on two cores.

A signature takes as long as the rest of a claim. One after another is checked in two thirds of the time, because the
processor's caches still have what it needs. The library releases Python's lock meanwhile, so a thread can check every
other one. The event loop's thread does not wait for it, but checks as many as it can itself: it would have to take
turns with the thread at the lock otherwise. So nothing waits for longer than the loop takes for the rest.
"""

import asyncio
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from claimsvc.identity.usual_tokens import UsualToken

# For fewer, waking the thread takes longer than it saves.
_FEWEST_SHARED = 4
# Checked in one turn of the event loop, in about a millisecond.
_MOST_IN_A_TURN = 32
_Result = TypeVar("_Result")


class _Check:
    """A signature to check: `run` in any thread, `tell` in that of the event loop."""

    __slots__ = ("_answer", "_failure", "_is_signed", "_then", "_token")

    def __init__(self, token: UsualToken, answer: "asyncio.Future[Any]", then: Callable[[bool], object]) -> None:
        self._token = token
        self._answer = answer
        self._then = then
        self._is_signed = False
        self._failure: Exception | None = None

    def run(self) -> None:
        try:
            self._is_signed = self._token.is_signed()
        except Exception as failure:  # noqa: BLE001 - raised where the answer is awaited
            self._failure = failure

    def tell(self) -> None:
        if self._answer.done():
            return  # nobody waits for it any more
        if self._failure is None:
            self._answer.set_result(self._then(self._is_signed))
        else:
            self._answer.set_exception(self._failure)


class SignatureChecks:
    """Checks signatures; `close` ends its thread, which the first tokens that arrive together start."""

    def __init__(self) -> None:
        self._arrived: list[_Check] = []
        # Those of one turn, which both threads take from. None ends the thread.
        self._shared: SimpleQueue[_Check | None] = SimpleQueue()
        self._helper: threading.Thread | None = None

    def check(self, token: UsualToken, then: Callable[[bool], _Result]) -> "asyncio.Future[_Result]":
        """Check a token's signature in a later turn of the event loop.

        Args:
            token: the token.
            then: called with whether the signature is good; must not raise. The future's result is what it returns.
        """
        loop = asyncio.get_running_loop()
        if not self._arrived:
            loop.call_soon(self._check_arrived, loop)
        answer = loop.create_future()
        self._arrived.append(_Check(token, answer, then))
        return answer

    def close(self) -> None:
        """End the thread; what is checked is told before."""
        if self._helper is not None:
            self._shared.put(None)
            self._helper.join()
            self._helper = None

    def _check_arrived(self, loop: asyncio.AbstractEventLoop) -> None:
        checks, self._arrived = self._arrived[:_MOST_IN_A_TURN], self._arrived[_MOST_IN_A_TURN:]
        if self._arrived:
            loop.call_soon(self._check_arrived, loop)
        if len(checks) < _FEWEST_SHARED:
            for check in checks:
                check.run()
                check.tell()
            return
        if self._helper is None:
            self._helper = threading.Thread(target=self._help, args=(loop,), name="signatures", daemon=True)
            self._helper.start()
        for check in checks:
            self._shared.put(check)
        for check in self._take_shared():
            check.tell()

    def _help(self, loop: asyncio.AbstractEventLoop) -> None:
        while (check := self._shared.get()) is not None:
            check.run()
            loop.call_soon_threadsafe(_tell, [check, *self._take_shared()])

    def _take_shared(self) -> list[_Check]:
        """Check what is left, until nothing is."""
        taken: list[_Check] = []
        while True:
            try:
                check = self._shared.get_nowait()
            except Empty:
                return taken
            if check is None:
                self._shared.put(None)  # for the thread's next turn
                return taken
            check.run()
            taken.append(check)


def _tell(checks: list[_Check]) -> None:
    for check in checks:
        check.tell()
