"""What lies between the instances and the servers, and the ways in which it fails.

A question travels to its server, is answered there in one moment, and the answer travels back. Each way takes a time
drawn from the seed, and what arrives at a server happens there whether or not anybody still waits for the answer.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from claimsvc.redis.masters import Master
from tests.simulation.loop import SimulatedLoop
from tests.simulation.masters import Reply, SimulatedRedis
from tests.simulation.wires import SimulatedConnection, SimulatedPool
from tests.simulation.witness import Witness

Answer = Callable[[Reply], None]

REDIS_TIMEOUT_SECONDS = 0.5
# Of the masters' addresses, which lead nowhere: the ports tell them apart.
FIRST_PORT = 7000
_LISTEN_TIMEOUT_SECONDS = 2.0


class Network:
    """Carries questions. What is random about it comes from the seed.

    Args:
        seconds: what one way takes, about.
    """

    def __init__(self, loop: SimulatedLoop, chance: random.Random, *, seconds: float, witness: Witness) -> None:
        self.loop = loop
        self.chance = chance
        self.witness = witness
        self._seconds = seconds

    def delay(self) -> float:
        # Mostly about the same, and now and then many times that: a packet was lost and sent again.
        spread = self.chance.random()
        return self._seconds * (0.5 + spread if spread < 0.98 else 20.0)

    async def ask(
        self,
        arrive: Callable[[Answer], None],
        *,
        timeout: float,
        late: Callable[[], Exception],
        measured: Callable[[float], None] = lambda _: None,
    ) -> Reply:
        """Let `arrive` happen at the server, and return what it answers; an error that it answers is raised.

        `measured` is called with how long it took, which does not grow while the asking process is paused.
        """
        loop = self.loop
        asked_at = loop.now
        reply: asyncio.Future[Reply] = loop.create_future()
        withdrawn = False

        def deliver(answer: Reply) -> None:
            if not reply.done():
                if isinstance(answer, Exception):
                    reply.set_exception(answer)
                else:
                    reply.set_result(answer)

        def give_up() -> None:
            if not reply.done():
                measured(timeout)
            deliver(late())

        timer = loop.call_later(timeout, give_up)
        context = timer._context  # type: ignore[attr-defined]

        def answer(what: Reply) -> None:
            at = loop.now + self.delay()
            if not reply.done():
                measured(min(timeout, at - asked_at))
            loop.call_at(at, deliver, what, context=context)

        def reach() -> None:
            if not withdrawn:
                arrive(answer)

        loop.in_world(self.delay(), reach)
        try:
            return await reply
        except asyncio.CancelledError:
            # The question may have left by then, or may not.
            withdrawn = self.chance.random() < 0.3
            raise
        finally:
            timer.cancel()


class MasterHost:
    """The machine of one master: whether it answers, and whom."""

    def __init__(self, number: int, network: Network) -> None:
        self.number = number
        self.network = network
        self.clock_offset = 0.0
        self.down = False
        self.slow_seconds = 0.0
        self.lose_replies = False
        self.lose_hints = False
        self.lose_messages = False
        self.double_messages = False
        self.late_messages = False
        self.cut_off: set[int] = set()
        self.connections: list[SimulatedConnection] = []
        self._hung = False
        self._unanswered: list[Callable[[], None]] = []
        self.redis = SimulatedRedis(
            self.clock, lambda seconds, callback: network.loop.in_world(seconds, callback), self._delays_of_message
        )

    def clock(self) -> float:
        return self.network.loop.now + self.clock_offset

    def hang(self) -> None:
        self._hung = True

    def heal(self) -> None:
        """Everything works again, and what was sent to it while it hung is done now."""
        self.down = self._hung = self.lose_replies = self.lose_hints = self.redis.read_only = False
        self.lose_messages = self.double_messages = self.late_messages = False
        self.slow_seconds = 0.0
        self.cut_off.clear()
        unanswered, self._unanswered = self._unanswered, []
        for each in unanswered:
            each()

    def go_down(self, *, forget: bool) -> None:
        self.down = True
        self.redis.unblock_all(RedisConnectionError("connection reset"))
        for connection in list(self.connections):
            connection.cut()
        if forget:
            self.redis.forget()

    def can_reach(self, process: int) -> bool:
        return process not in self.cut_off

    def end_connections_of(self, process: int) -> None:
        """The process has ended, and its machine has told so."""
        for connection in list(self.connections):
            if connection.process == process:
                connection.forget()

    def receive(self, process: int, command: Sequence[Any], answer: Answer) -> None:
        if self.down or process in self.cut_off:
            answer(RedisConnectionError("connection refused"))
        elif self._hung:
            self._unanswered.append(lambda: self.receive(process, command, answer))
        elif self.slow_seconds:
            self.network.loop.in_world(
                self.slow_seconds * self.network.chance.random(), self._do, process, command, answer
            )
        else:
            self._do(process, command, answer)

    def _do(self, process: int, command: Sequence[Any], answer: Answer) -> None:
        if command[0] == "BLPOP":
            self._block(command[1:-1], command[-1], answer)
            return
        reply = self.redis.execute(*command)
        self.network.witness.saw(self.number, process, command, reply, self.redis)
        if self.lose_replies and self.network.chance.random() < 0.5:
            reply = RedisConnectionError("connection reset")
        answer(reply)

    def _delays_of_message(self) -> list[float]:
        """Each copy of a message comes after some seconds. One that is 3 s late finds nobody who still waits for it."""
        chance, messages = self.network.chance, self.network.witness.messages
        if self.lose_messages and chance.random() < 0.5:
            messages["lost"] += 1
            return []
        delays = [0.0]
        if self.late_messages and chance.random() < 0.5:
            messages["late"] += 1
            delays = [chance.choice([0.01, 0.7, 3.0]) * chance.random()]
        if self.double_messages and chance.random() < 0.7:
            messages["doubled"] += 1
            delays.append(chance.choice([0.0, 0.02, 0.3, 3.0]) * chance.random())
        return delays

    def _block(self, keys: Sequence[str], seconds: float, answer: Answer) -> None:
        def pass_on(element: Reply) -> None:
            if element is not None and self.lose_hints and not isinstance(element, RedisError):
                element = RedisConnectionError("connection reset")
            answer(element)

        self.redis.block(keys, pass_on, seconds)


class _Wire(Redis):
    """The lower half of a redis-py client: in the place of connections, the simulated network."""

    host: MasterHost
    process: int

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        return await self.host.network.ask(
            lambda answer: self.host.receive(self.process, args, answer),
            timeout=REDIS_TIMEOUT_SECONDS,
            late=lambda: RedisTimeoutError("Timeout reading from socket"),
            measured=self.host.network.witness.took,
        )


class SimulatedMaster(Master, _Wire):  # type: ignore[misc] # redis-py's own bases disagree
    """The service's own client of a master, on the simulated network."""

    def __init__(self, host: MasterHost, process: int, url: str, **limits: Any) -> None:
        super().__init__(url, **limits)
        self.host = host
        self.process = process
        self.connection_pool: Any = SimulatedPool(host, process)

    def __hash__(self) -> int:
        # pottery keeps masters in a set; the order in which it asks them must not depend on where they are in memory.
        return self.host.number

    def __eq__(self, other: object) -> bool:
        return self is other

    def __repr__(self) -> str:
        return f"<master {self.name} of instance {self.process}>"

    def register_script(self, script: str) -> None:  # type: ignore[override]
        """pottery's own scripts, of which none is used."""

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """There is nothing to close."""


class SimulatedListener:
    """The connection on which an instance waits for its hints."""

    def __init__(self, host: MasterHost, process: int) -> None:
        self._host = host
        self._process = process

    async def blpop(self, keys: Sequence[str], timeout: float) -> Any:
        command = ("BLPOP", *keys, timeout)
        return await self._host.network.ask(
            lambda answer: self._host.receive(self._process, command, answer),
            timeout=_LISTEN_TIMEOUT_SECONDS,
            late=lambda: RedisTimeoutError("Timeout reading from socket"),
        )

    async def aclose(self) -> None:
        """There is nothing to close."""


wire = _Wire
