"""Where the service's code meets what is simulated: its clock, its chance, and its clients of the masters.

Patched while the context lasts, in the modules that ask for them and nowhere else.
"""

import asyncio
import random
import sys
import time
import uuid
from collections.abc import Coroutine, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

import pottery.aioredlock
import pottery.timer
import structlog
import uuid_utils

from claimsvc.claiming.combining import combiner
from claimsvc.claiming.strategies import redlock
from claimsvc.redis import masters as service_masters
from claimsvc.redis.lock import wait_queue
from tests.simulation.database import first_id_at
from tests.simulation.loop import SimulatedLoop, current_process
from tests.simulation.network import FIRST_PORT, MasterHost, SimulatedListener, SimulatedMaster, wire
from tests.simulation.scenario import Scenario


class Border:
    """The simulation that runs at the moment, as the patched modules see it."""

    def __init__(self) -> None:
        self.loop: SimulatedLoop
        self.chance = random.Random(0)
        self.hosts: list[MasterHost] = []
        self.logged: list[structlog.typing.EventDict] = []

    @staticmethod
    def tune(scenario: Scenario) -> None:
        """Let the limits of combining be those of a scenario. The service's own are reached by longer runs only."""
        combiner._MOST_OF_OTHERS = scenario.most_of_others
        redlock._DUTY_SECONDS = scenario.duty_seconds

    def now(self) -> float:
        return self.loop.now

    def master(self, url: str, **limits: Any) -> SimulatedMaster:
        return SimulatedMaster(self._host(url), current_process(), url, **limits)

    def listener(self, url: str, **_: Any) -> SimulatedListener:
        return SimulatedListener(self._host(url), current_process())

    def _host(self, url: str) -> MasterHost:
        return self.hosts[(urlsplit(url).port or 0) - FIRST_PORT]

    def note(self, _: object, level: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        self.logged.append({**event, "level": level})
        raise structlog.DropEvent

    def uuid4(self) -> uuid.UUID:
        return uuid.UUID(int=self.chance.getrandbits(128), version=4)

    def uuid7(self) -> uuid.UUID:
        """As every instance makes it: their wall clocks agree."""
        first = uuid.UUID(first_id_at(self.loop.now)).int
        return uuid.UUID(int=first | self.chance.getrandbits(62))

    def uniform(self, low: float, high: float) -> float:
        return self.chance.uniform(low, high)


_WATCHED = (
    "claimsvc.claiming.batching",
    "claimsvc.claiming.combining",
    "claimsvc.claiming.strategies",
    "claimsvc.redis.counters",
    "claimsvc.redis.lock",
    "claimsvc.redis.masters",
)

_TUNED = ((combiner, "_MOST_OF_OTHERS"), (redlock, "_DUTY_SECONDS"))


@contextmanager
def simulated_surroundings() -> Iterator[Border]:
    """The service's modules see a simulation in the place of clock, chance and masters; each run sets it anew."""
    border = Border()
    clock = SimpleNamespace(monotonic=border.now, perf_counter=border.now)
    logging = structlog.get_config()
    with ExitStack() as patched:
        for module in [module for name, module in sys.modules.items() if name.startswith(_WATCHED)]:
            for name, value in list(vars(module).items()):
                assert value is not time.monotonic, f"{module.__name__} keeps the real clock"
                if value is time:
                    patched.enter_context(patch.object(module, name, clock))
                elif value is random or value is uuid:
                    patched.enter_context(patch.object(module, name, border))
                elif value is uuid_utils.uuid7:
                    patched.enter_context(patch.object(module, name, border.uuid7))
        for module, name in _TUNED:
            patched.enter_context(patch.object(module, name, getattr(module, name)))
        patched.enter_context(patch.object(service_masters, "Master", border.master))
        patched.enter_context(patch.object(service_masters, "Redis", wire))
        patched.enter_context(patch.object(wait_queue, "Client", SimpleNamespace(from_url=border.listener)))
        patched.enter_context(patch.object(pottery.timer, "timeit", SimpleNamespace(default_timer=border.now)))
        patched.enter_context(patch.object(pottery.aioredlock, "asyncio", _AsyncioInOrder()))
        structlog.configure(processors=[border.note], wrapper_class=structlog.make_filtering_bound_logger("warning"))
        patched.callback(structlog.configure, **logging)
        yield border


class _AsyncioInOrder:
    """asyncio, but tasks are made in the order of the questions, which `as_completed` leaves to their addresses."""

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    def as_completed(self, questions: Iterable[Coroutine[Any, Any, Any]]) -> Iterator[Any]:
        return asyncio.as_completed([asyncio.ensure_future(question) for question in questions])
