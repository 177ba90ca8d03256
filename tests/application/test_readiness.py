"""Readiness: what its observer is told, and that it is told even if nobody asks."""

import asyncio
from collections.abc import Mapping

from claimsvc.application.readiness import Readiness
from claimsvc.errors import Trouble, UnavailableError

Told = tuple[bool, dict[str, bool]]


class Dependency:
    """One that can be switched off."""

    def __init__(self) -> None:
        self.is_up = True
        self.asked = 0

    async def __call__(self) -> None:
        self.asked += 1
        if not self.is_up:
            raise UnavailableError("gone", dependency="postgresql")


class Observer:
    def __init__(self) -> None:
        self.told: list[Told] = []

    def readiness_checked(self, ready: bool, dependencies: Mapping[str, bool]) -> None:
        self.told.append((ready, dict(dependencies)))


async def until(observer: Observer, expected: Told) -> None:
    async with asyncio.timeout(5):
        while expected not in observer.told:
            await asyncio.sleep(0.01)


async def test_an_observer_learns_which_dependency_is_down_though_nobody_asks() -> None:
    postgresql, redis, observer = Dependency(), Dependency(), Observer()
    readiness = Readiness({"postgresql": postgresql, "redis": redis}, observer)
    async with readiness.watched():
        assert observer.told == [(True, {"postgresql": True, "redis": True})], "before the first request"
        postgresql.is_up = False
        await until(observer, (False, {"postgresql": False, "redis": True}))
        postgresql.is_up = True
        observer.told.clear()
        await until(observer, (True, {"postgresql": True, "redis": True}))


async def test_an_observer_that_fails_once_is_told_again() -> None:
    class Failing(Observer):
        failures = 0

        def readiness_checked(self, ready: bool, dependencies: Mapping[str, bool]) -> None:
            super().readiness_checked(ready, dependencies)
            if len(self.told) == 2:
                self.failures += 1
                raise OSError("no space left")

    observer = Failing()
    async with Readiness({"postgresql": Dependency()}, observer).watched(), asyncio.timeout(10):
        while len(observer.told) < 3:
            await asyncio.sleep(0.05)
    assert observer.failures == 1


async def test_who_asks_and_the_observer_are_told_the_same_by_one_check() -> None:
    now, postgresql, observer = 0.0, Dependency(), Observer()
    readiness = Readiness({"postgresql": postgresql}, observer, clock=lambda: now)
    postgresql.is_up = False
    reports = [await readiness.report() for _ in range(3)]
    assert [report["postgresql"].is_ok for report in reports] == [False] * 3
    assert reports[0]["postgresql"].detail == "gone"
    assert (postgresql.asked, observer.told) == (1, [(False, {"postgresql": False})])
    postgresql.is_up, now = True, 1.0
    assert (await readiness.report())["postgresql"].is_ok
    assert observer.told[-1] == (True, {"postgresql": True})


async def test_an_instance_that_stops_is_not_ready_whatever_its_dependencies_are() -> None:
    observer = Observer()
    readiness = Readiness({"postgresql": Dependency()}, observer)
    await readiness.report()
    readiness.stop()
    assert observer.told[-1] == (False, {"postgresql": True})
    assert [check.is_ok for check in (await readiness.report()).values()] == [False]


async def test_operators_are_told_why_and_clients_what_is_not_usable() -> None:
    async def refused() -> None:
        raise UnavailableError(
            "gone", dependency="postgresql", trouble=Trouble("it refuses the password", "correct it")
        )

    report = await Readiness({"postgresql": refused}).report()
    assert (report["postgresql"].detail, report["postgresql"].why) == ("gone", "it refuses the password")
