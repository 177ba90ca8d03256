"""Who held which lock and who waited for it, as the masters saw it."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.simulation.masters import LOCK, SimulatedRedis, script_of


@dataclass(frozen=True, slots=True)
class Held:
    """From `since` on, one master had this lock under the token of that process; None: of nobody."""

    since: float
    master: int
    process: int | None


@dataclass(slots=True)
class Wait:
    """A process's time in the line of a lock, until it got it, and how often others got it meanwhile."""

    key: str
    process: int
    since: float
    overtaken: int = 0
    seconds: float = 0.0


class Witness:
    """Notes what the properties are about and no instance can know alone."""

    def __init__(self, clock: Callable[[], float], masters: int) -> None:
        self._clock = clock
        self._majority = masters // 2 + 1
        self._owners: dict[str, int] = {}
        self._held: dict[str, dict[int, str | None]] = defaultdict(dict)
        self._waiting: dict[str, dict[int, Wait]] = defaultdict(dict)
        self.history: dict[str, list[Held]] = defaultdict(list)
        self.acquisitions = 0
        self.waits: list[Wait] = []
        self.slowest_reply = 0.0
        self.messages: Counter[str] = Counter()

    def saw(self, master: int, process: int, command: Sequence[Any], reply: Any, redis: SimulatedRedis) -> None:
        """A master has just carried out a command."""
        if isinstance(reply, Exception):
            return
        if command[0] == "SET" and str(command[1]).startswith(LOCK):
            self._owners[command[2]] = process
            self._look(master, command[1], redis)
        elif script := script_of(command):
            keys = command[3 : 3 + int(command[2])]
            if script is SimulatedRedis._lock_wait:
                if reply:
                    self._waiting[keys[0]].setdefault(process, Wait(keys[0], process, self._clock()))
            elif script is SimulatedRedis._lock_hand:
                self.messages[f"hand-over found {reply.decode()}"] += 1
            elif script in (SimulatedRedis._lock_take, SimulatedRedis._lock_release):
                self._owners.setdefault(command[3 + int(command[2])], process)
                for key in keys:
                    self._look(master, key, redis)
        elif command[0] == "ZREM":
            self._waiting[LOCK + str(command[1]).rpartition(":")[2]].pop(process, None)

    def took(self, seconds: float) -> None:
        """A master has answered after this time."""
        self.slowest_reply = max(self.slowest_reply, seconds)

    def was_held_by_another(self, coupon_name: str, process: int, since: float, until: float) -> bool:
        """Whether some master had the lock under another process's token at a moment of that time."""
        last: dict[int, Held] = {}
        for held in self.history[LOCK + coupon_name]:
            before = last.get(held.master)
            if before and before.process not in (None, process) and before.since <= until and held.since >= since:
                return True
            last[held.master] = held
        return any(held.process not in (None, process) and held.since <= until for held in last.values())

    def _look(self, master: int, key: str, redis: SimulatedRedis) -> None:
        token = redis.get(key)
        held = self._held[key]
        if held.get(master) == token:
            return
        held[master] = token
        owner = None if token is None else self._owners.get(token, -1)
        self.history[key].append(Held(self._clock(), master, owner))
        if token is not None and sum(other == token for other in held.values()) == self._majority:
            self._acquired(key, owner)

    def _acquired(self, key: str, process: int | None) -> None:
        self.acquisitions += 1
        waiting = self._waiting[key]
        if process is not None and (ended := waiting.pop(process, None)):
            ended.seconds = self._clock() - ended.since
            self.waits.append(ended)
        for other in waiting.values():
            other.overtaken += 1
