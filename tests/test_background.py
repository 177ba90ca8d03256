"""Tasks beside a context end with it, whatever they do."""

import asyncio

import pytest

from claimsvc.background import end, in_background


async def test_works_run_while_the_context_is_active_and_have_ended_after_it() -> None:
    events = []

    async def work(name: str) -> None:
        events.append(f"{name} begins")
        try:
            await asyncio.sleep(3600)
        finally:
            events.append(f"{name} ends")

    async with in_background(work("one"), work("two")):
        await asyncio.sleep(0)
        assert events == ["one begins", "two begins"]
    assert sorted(events[2:]) == ["one ends", "two ends"]


async def test_a_work_that_loses_a_cancellation_is_cancelled_again() -> None:
    lost = 0

    async def work() -> None:
        nonlocal lost
        while lost < 1:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                lost += 1
        await asyncio.sleep(3600)

    async with asyncio.timeout(30):
        async with in_background(work()):
            await asyncio.sleep(0)
    assert lost == 1


async def test_the_error_of_a_work_stays_its_own() -> None:
    async def fail() -> None:
        raise OSError("lost")

    async with in_background(fail()):
        await asyncio.sleep(0)


async def test_what_has_ended_is_not_waited_for() -> None:
    async def answer() -> int:
        return 42

    task = asyncio.create_task(answer())
    assert await task == 42
    await end([task])
    await end([])


async def test_the_error_of_the_context_is_raised_after_the_works_have_ended() -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    with pytest.raises(ValueError, match="of the context"):
        async with in_background(work()):
            await asyncio.sleep(0)
            raise ValueError("of the context")
    assert ended.is_set()
