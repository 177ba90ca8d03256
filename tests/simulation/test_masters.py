"""The simulated master answers what a real one answers."""

import time
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.simulation.masters import SimulatedRedis

_LUA = files("claimsvc.redis").joinpath("lua")
# Of an instance that combines, of one that does not, and of neither.
_TOKENS = st.sampled_from(["i1/+token", "i2/token", "i3/+token", "token-1"])
_INSTANCES = st.sampled_from(["i1", "i2", "i3"])
_LOCKS = st.sampled_from(["claim:coupon:a", "claim:coupon:b"])
_COUNTER = st.just("claim:stock:{a}")
_UNITS = st.integers(0, 5).map(str)
_MESSAGES = st.sampled_from([b"one\nwith a second line", b"two\xff"])
_INBOX = "claim:inbox:i1"
_WOKEN = st.sampled_from(["", "i1", "i3"])


def _script(name: str, keys: st.SearchStrategy[list[str]], *arguments: st.SearchStrategy[str | bytes]) -> Any:
    text = _LUA.joinpath(name).read_text("ascii")
    return st.tuples(keys, *arguments).map(lambda drawn: ("EVAL", text, len(drawn[0]), *drawn[0], *drawn[1:]))


_COMMANDS = st.one_of(
    st.tuples(st.just("SET"), _LOCKS, _TOKENS, st.just("PX"), st.just("60000"), st.just("NX")),
    st.tuples(st.just("SET"), _COUNTER, _UNITS, st.just("NX")),
    st.tuples(st.just("GET"), st.one_of(_LOCKS, _COUNTER)),
    st.tuples(st.just("EXISTS"), st.sampled_from(["claim:coupon:a", "claim:waiting:a", "claim:turn:a"])),
    st.tuples(st.just("ZREM"), st.just("claim:waiting:a"), _INSTANCES),
    _INSTANCES.map(lambda name: ("BLPOP", f"claim:hints:{name}")),
    _script("lock_take.lua", st.lists(_LOCKS, min_size=1, max_size=2), _TOKENS, st.just("60000")),
    _script(
        "lock_release.lua",
        st.lists(_LOCKS, min_size=1, max_size=2),
        _TOKENS,
        st.just("60000"),
        st.just("60000"),
        _WOKEN,
    ),
    _script("lock_wait.lua", st.lists(_LOCKS, min_size=1, max_size=1), _INSTANCES, st.just(""), st.just("60000")),
    _script("lock_hand.lua", st.lists(_LOCKS, min_size=1, max_size=1), _MESSAGES, _INSTANCES),
    st.tuples(st.just("PUBLISH"), st.sampled_from([_INBOX, "claim:inbox:i2"]), _MESSAGES),
    _script("counter_take.lua", st.lists(_COUNTER, min_size=1, max_size=1), _UNITS),
    _script("counter_give_back.lua", st.lists(_COUNTER, min_size=1, max_size=1), _UNITS),
    _script("counter_forget.lua", st.lists(_COUNTER, min_size=1, max_size=1), _UNITS),
)


class Inbox:
    """Of one of the instances."""

    def __init__(self) -> None:
        self.received: list[bytes] = []

    def deliver(self, channel: str, message: bytes) -> None:
        assert channel == _INBOX
        self.received.append(message)


@pytest.fixture
def master(redis_urls: tuple[str, ...]) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_urls[0]) as client:
        yield client


@settings(
    max_examples=150, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(commands=st.lists(_COMMANDS, min_size=5, max_size=40))
def test_the_simulated_master_answers_as_a_real_one(master: redis.Redis, commands: list[tuple[Any, ...]]) -> None:
    master.flushall()
    simulated = SimulatedRedis(time.time, lambda seconds, callback: None)
    inbox = Inbox()
    simulated.subscribe(_INBOX, inbox)
    with master.pubsub(ignore_subscribe_messages=True) as real_inbox:  # type: ignore[no-untyped-call]
        real_inbox.subscribe(_INBOX)
        real_inbox.get_message(timeout=1)
        _compare(master, simulated, commands)
        for message in inbox.received:
            received = real_inbox.get_message(timeout=5)
            assert received is not None
            assert received["data"] == message
        assert real_inbox.get_message(timeout=0) is None


def _compare(master: redis.Redis, simulated: SimulatedRedis, commands: list[tuple[Any, ...]]) -> None:
    for command in commands:
        if command[0] == "BLPOP":
            popped: list[Any] = [None]
            simulated.block(command[1:], popped.append, 0)
            if popped[-1] is None:
                assert not master.exists(*command[1:])
            else:
                assert popped[-1] == master.blpop(command[1:], timeout=1)
            simulated.unblock_all(redis.RedisError())
            continue
        ours, theirs = simulated.execute(*command), ask(master, *command)
        if isinstance(ours, bytes) and ours.isdigit() and command[0] == "EVAL":  # since when an instance waits
            assert theirs.isdigit()
        else:
            assert ours == theirs, command


def ask(master: redis.Redis, *command: Any) -> Any:
    return master.execute_command(*command)  # type: ignore[no-untyped-call]


def test_a_script_that_is_not_known_yet_is_refused_by_both(master: redis.Redis) -> None:
    master.script_flush()
    simulated = SimulatedRedis(time.time, lambda seconds, callback: None)
    command = ("EVALSHA", "0" * 40, 1, "claim:coupon:a")
    with pytest.raises(redis.exceptions.NoScriptError):
        ask(master, *command)
    assert isinstance(simulated.execute(*command), redis.exceptions.NoScriptError)


def test_a_key_lives_for_its_time_and_no_longer() -> None:
    now = 0.0
    simulated = SimulatedRedis(lambda: now, lambda seconds, callback: None)
    simulated.execute("SET", "claim:coupon:a", "token", "PX", 1000, "NX")
    now = 0.999
    assert simulated.execute("EXISTS", "claim:coupon:a") == 1
    now = 1.0
    assert simulated.execute("EXISTS", "claim:coupon:a") == 0
