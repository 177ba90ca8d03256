"""Failpoints: their language, and that nothing is there unless they are asked for."""

import asyncio
import time
from collections.abc import Collection
from types import SimpleNamespace
from typing import Any, cast

import pytest

from claimsvc import failpoints as failpoints_module
from claimsvc.config import Settings
from claimsvc.errors import SettingsError
from claimsvc.failpoints import AFTER_LOCK, BEFORE_COMMIT, Failpoints
from claimsvc.ports import Tickets
from claimsvc.postgres.claiming import ticket_ends


def test_there_are_none_unless_they_are_asked_for() -> None:
    assert Settings.model_fields["failpoints"].default == ()
    assert Failpoints.parse(()) is None


@pytest.mark.parametrize(
    "word",
    ["", "before-commit", "nowhere=exit", "before-commit=explode", "before-commit=exit@0", "after-lock=stall", "=exit"],
)
def test_a_word_that_is_none_is_refused_with_what_it_should_be(word: str) -> None:
    with pytest.raises(SettingsError, match=r"CLAIMSVC_FAILPOINTS.*before-commit=exit@3"):
        Failpoints.parse((word,))


async def test_one_fires_at_its_time_and_never_again() -> None:
    failpoints = Failpoints.parse(("after-lock=wait:0.05@2",))
    assert failpoints is not None
    waits = []
    for point in (AFTER_LOCK, BEFORE_COMMIT, AFTER_LOCK, AFTER_LOCK):
        started = time.monotonic()
        await failpoints.reach(point)
        waits.append(time.monotonic() - started >= 0.05)
    assert waits == [False, False, True, False]


async def test_without_a_time_one_fires_every_time() -> None:
    failpoints = Failpoints.parse(("after-lock=wait:0.02",))
    assert failpoints is not None
    started = time.monotonic()
    for _ in range(3):
        await failpoints.reach(AFTER_LOCK)
    assert time.monotonic() - started >= 0.06


async def test_a_stall_holds_up_the_whole_event_loop_and_a_wait_does_not() -> None:
    for action, turns_meanwhile in (("stall", False), ("wait", True)):
        failpoints = Failpoints.parse((f"after-lock={action}:0.1",))
        assert failpoints is not None
        reached = asyncio.create_task(failpoints.reach(AFTER_LOCK))
        await asyncio.sleep(0)
        assert reached.done() != turns_meanwhile
        await reached


class _Leases:
    """`ports.Tickets`, as far as a dispatcher has leased something or nothing."""

    def __init__(self, *leased: int) -> None:
        self._leased = iter(leased)

    async def dispatch(self, instance: str, *, lease_seconds: float, freed: Collection[str] = ()) -> Any:
        return SimpleNamespace(started=["ticket"] * next(self._leased))

    async def due_in(self) -> float | None:
        return 7.0


async def test_a_lease_is_followed_by_its_failpoint_and_none_by_nothing() -> None:
    failpoints = Failpoints.parse(("after-lease=wait:0.05@1",))
    assert failpoints is not None
    tickets = failpoints.tickets(cast("Tickets", _Leases(0, 2)))
    waits = []
    for _ in range(2):
        started = time.monotonic()
        await tickets.dispatch("here", lease_seconds=5)
        waits.append(time.monotonic() - started >= 0.05)
    assert waits == [False, True]
    assert await tickets.due_in() == 7.0


def test_the_ends_of_tickets_are_known_by_what_their_statement_says() -> None:
    assert ticket_ends._END.encode().count(failpoints_module._WRITES_ENDS) == 1
