"""Redis masters that are simulated: what they hold, their clock, and the ways in which asking them can fail.

The commands arrive here as redis-py would send them; scripts are known by the digests of the files that the service
sends, and each is written again in Python. `test_masters.py` compares the answers with those of a real server.
"""

from collections import deque
from collections.abc import Callable, Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Any, ClassVar, Protocol

from redis.exceptions import NoScriptError, ReadOnlyError, RedisError, ResponseError

Reply = Any


class Subscriber(Protocol):
    """A connection on which the messages of some channels are received."""

    def deliver(self, channel: str, message: bytes) -> None:
        """Receive a message."""
        ...


_READS = {"PING", "GET", "EXISTS", "PUBLISH"}
LOCK, _TURN, _LINE, _HINTS = "claim:coupon:", "claim:turn:", "claim:waiting:", "claim:hints:"
_INBOX = "claim:inbox:"


class SimulatedRedis:
    """One master: strings, sorted sets and lists with times to live.

    Args:
        clock: the time of its own clock, in seconds.
        run_later: calls back after so many seconds, for those who block.
        delays_of_message: after how many seconds each copy of a message is delivered; none if it is lost.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        run_later: Callable[[float, Callable[[], None]], None],
        delays_of_message: Callable[[], Sequence[float]] = lambda: (0.0,),
    ) -> None:
        self._clock = clock
        self._run_later = run_later
        self._delays_of_message = delays_of_message
        self._values: dict[str, Any] = {}
        self._ends: dict[str, float] = {}
        self._scripts: set[str] = set()
        self._subscribers: dict[str, list[Subscriber]] = {}
        self._blocked: list[tuple[Sequence[str], Callable[[Reply], None]]] = []
        self.read_only = False

    def forget(self) -> None:
        """Restarted without its data; scripts are forgotten too."""
        self._values.clear()
        self._ends.clear()
        self._scripts.clear()

    def forget_scripts(self) -> None:
        self._scripts.clear()

    def keys(self, prefix: str) -> list[str]:
        return [key for key in list(self._values) if key.startswith(prefix) and self._get(key) is not None]

    def get(self, key: str) -> Any:
        return self._get(key)

    def execute(self, name: str, *arguments: Any) -> Reply:
        """Answer one command; an error is returned, not raised."""
        words = [_text(argument) for argument in arguments]
        if self.read_only and name not in _READS and script_of((name, *words)) is not SimulatedRedis._lock_hand:
            return ReadOnlyError("You can't write against a read only replica.")
        try:
            if name == "EVALSHA":
                if words[0] not in self._scripts:
                    return NoScriptError("No matching script.")
                return self._run_script(words[0], words[1:])
            if name == "EVAL":
                digest = _digest(words[0])
                self._scripts.add(digest)
                return self._run_script(digest, words[1:])
            return self._COMMANDS[name](self, *words)
        except RedisError as error:
            return error

    def block(self, keys: Sequence[str], answer: Callable[[Reply], None], seconds: float) -> None:
        """BLPOP: `answer` is called with the first element once there is one, or with None when time is up."""
        for key in keys:
            if self._get(key):
                answer(self._pop(key))
                return
        blocked = (keys, answer)
        self._blocked.append(blocked)

        def give_up() -> None:
            if blocked in self._blocked:
                self._blocked.remove(blocked)
                answer(None)

        self._run_later(seconds, give_up)

    def unblock_all(self, error: RedisError) -> None:
        """Every connection was cut."""
        blocked, self._blocked = self._blocked, []
        for _, answer in blocked:
            answer(error)

    def _push(self, key: str, element: bytes, milliseconds: str) -> None:
        """RPUSH and PEXPIRE: who has blocked on the list longest gets the element."""
        elements = self._get(key)
        if elements is None:
            elements = deque()
            self._put(key, elements)
        elements.append(element)
        self._expire(key, milliseconds)
        for blocked in list(self._blocked):
            keys, answer = blocked
            if key in keys and self._get(key):
                self._blocked.remove(blocked)
                answer(self._pop(key))

    def _pop(self, key: str) -> Reply:
        elements = self._get(key)
        element = elements.popleft()
        if not elements:
            self._delete(key)
        return key.encode(), element

    def subscribe(self, channel: str, subscriber: Subscriber) -> None:
        self._subscribers.setdefault(channel, []).append(subscriber)

    def unsubscribe(self, channel: str, subscriber: Subscriber) -> None:
        if subscriber in self._subscribers.get(channel, ()):
            self._subscribers[channel].remove(subscriber)

    def _publish(self, channel: str, message: str) -> Reply:
        """Deliver a message, as often and as late as the network has it."""

        def deliver() -> None:
            for subscriber in list(self._subscribers.get(channel, ())):
                subscriber.deliver(channel, message.encode("utf-8", "surrogateescape"))

        subscribers = len(self._subscribers.get(channel, ()))
        for delay in self._delays_of_message() if subscribers else ():
            if delay:
                self._run_later(delay, deliver)
            else:
                deliver()
        return subscribers

    def _get(self, key: str) -> Any:
        ends = self._ends.get(key)
        if ends is not None and ends <= self._clock():
            self._delete(key)
        return self._values.get(key)

    def _put(self, key: str, value: Any, milliseconds: str | None = None) -> None:
        self._values[key] = value
        self._ends.pop(key, None)
        if milliseconds is not None:
            self._ends[key] = self._clock() + int(milliseconds) / 1000

    def _expire(self, key: str, milliseconds: str) -> None:
        self._ends[key] = self._clock() + int(milliseconds) / 1000

    def _delete(self, key: str) -> bool:
        self._ends.pop(key, None)
        return self._values.pop(key, None) is not None

    def _ping(self) -> Reply:
        return True

    def _set(self, key: str, value: str, *options: str) -> Reply:
        if "NX" in options and self._get(key) is not None:
            return None
        self._put(key, value, options[options.index("PX") + 1] if "PX" in options else None)
        return True

    def _exists(self, *keys: str) -> Reply:
        return sum(self._get(key) is not None for key in keys)

    def _read(self, key: str) -> Reply:
        value = self._get(key)
        return None if value is None else value.encode()

    def _zrem(self, key: str, member: str) -> Reply:
        line = self._get(key)
        if line is None or member not in line:
            return 0
        del line[member]
        if not line:
            self._delete(key)
        return 1

    def _run_script(self, digest: str, words: list[str]) -> Reply:
        script = _SCRIPTS.get(digest)
        if script is None:
            raise ResponseError("a script that the simulation does not know: write it here too")
        count = int(words[0])
        return script(self, words[1 : 1 + count], *words[1 + count :])

    def _lock_take(self, keys: list[str], token: str, milliseconds: str) -> Reply:
        taken = []
        for key in keys:
            free = self._get(_TURN + key.removeprefix(LOCK)) is None
            taken.append(int(free and bool(self._set(key, token, "NX", "PX", milliseconds))))
        return taken

    def _lock_release(
        self, keys: list[str], token: str, turn_milliseconds: str, hint_milliseconds: str, successor: str
    ) -> Reply:
        given_back = []
        for key in keys:
            if self._get(key) != token:
                given_back.append(0)
                continue
            self._delete(key)
            name = key.removeprefix(LOCK)
            line = self._get(_LINE + name)
            woken = min(line, key=lambda member: (line[member], member)) if line else successor
            if line:
                self._zrem(_LINE + name, woken)
            if not woken:
                self._delete(_TURN + name)
                given_back.append(1)
                continue
            self._put(_TURN + name, woken, turn_milliseconds)
            self._push(_HINTS + woken, name.encode(), hint_milliseconds)
            given_back.append(2)
        return given_back

    def _lock_wait(self, keys: list[str], instance: str, since: str, milliseconds: str) -> Reply:
        name = keys[0].removeprefix(LOCK)
        turn = self._get(_TURN + name)
        if self._get(keys[0]) is None and turn in (None, instance):
            return b""
        since = since or str(int(self._clock() * 1_000_000))
        line = self._get(_LINE + name)
        if line is None:
            line = {}
            self._put(_LINE + name, line)
        line[instance] = int(since)
        self._expire(_LINE + name, milliseconds)
        return since.encode()

    def _lock_hand(self, keys: list[str], message: str, instance: str) -> Reply:
        token = self._get(keys[0])
        if token is None:
            turn = self._get(_TURN + keys[0].removeprefix(LOCK))
            return b"free" if turn in (None, instance) else b"reserved"
        holder, slash, rest = token.rpartition("/")
        if not slash or not rest.startswith("+") or holder == instance or not self._publish(_INBOX + holder, message):
            return b"held"
        return b"sent"

    def _counter_take(self, keys: list[str], units: str) -> Reply:
        count = self._get(keys[0])
        if count is None:
            return -1
        taken = max(0, min(int(count), int(units)))
        if taken:
            self._values[keys[0]] = str(int(count) - taken)
        return taken

    def _counter_give_back(self, keys: list[str], units: str) -> Reply:
        count = self._get(keys[0])
        if count is None:
            return 0
        self._values[keys[0]] = str(int(count) + int(units))
        return 1

    def _counter_forget(self, keys: list[str], count: str) -> Reply:
        return int(self._get(keys[0]) == count and self._delete(keys[0]))

    _COMMANDS: ClassVar[dict[str, Callable[..., Reply]]] = {
        "PING": _ping,
        "SET": _set,
        "GET": _read,
        "EXISTS": _exists,
        "ZREM": _zrem,
        "PUBLISH": _publish,
    }


def _text(word: object) -> str:
    return word.decode("utf-8", "surrogateescape") if isinstance(word, bytes) else str(word)


def _digest(text: str) -> str:
    return sha1(text.encode(), usedforsecurity=False).hexdigest()


def _script(name: str) -> str:
    return _digest(files("claimsvc.redis").joinpath("lua", name).read_text("ascii"))


def script_of(command: Sequence[Any]) -> Callable[..., Reply] | None:
    """What a command runs, written in Python; None if it runs no script."""
    if command[0] not in {"EVALSHA", "EVAL"}:
        return None
    return _SCRIPTS.get(command[1] if command[0] == "EVALSHA" else _digest(command[1]))


_SCRIPTS: dict[str, Callable[..., Reply]] = {
    _script("lock_take.lua"): SimulatedRedis._lock_take,
    _script("lock_release.lua"): SimulatedRedis._lock_release,
    _script("lock_wait.lua"): SimulatedRedis._lock_wait,
    _script("lock_hand.lua"): SimulatedRedis._lock_hand,
    _script("counter_take.lua"): SimulatedRedis._counter_take,
    _script("counter_give_back.lua"): SimulatedRedis._counter_give_back,
    _script("counter_forget.lua"): SimulatedRedis._counter_forget,
}
