"""Faults of one master, done to a real one.

What blocks here is short; in an event loop call it by `asyncio.to_thread` all the same.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from claimsvc.embedded import ValkeyServer, free_port

_PATIENCE_SECONDS = 0.3
_PROBE = "fault:probe"


@dataclass(frozen=True, slots=True)
class MasterFault:
    """Something that can be wrong with a master.

    Args:
        name: what it is called in a report.
        inflict, heal: do it, and undo it.
        error: the first word of what such a master answers to a write; empty if it answers nothing.
    """

    name: str
    inflict: Callable[[ValkeyServer], None]
    heal: Callable[[ValkeyServer], None]
    error: str = ""


@contextmanager
def client_of(master: ValkeyServer) -> Iterator[redis.Redis]:
    """An impatient client of one master."""
    client = redis.Redis(
        host="127.0.0.1",
        port=master.port,
        socket_timeout=_PATIENCE_SECONDS,
        socket_connect_timeout=_PATIENCE_SECONDS,
        retry=Retry(NoBackoff(), 0),
        decode_responses=True,
    )
    try:
        yield client
    finally:
        client.close()


def takes_writes(master: ValkeyServer) -> bool:
    """Whether it is of use to a lock."""
    with client_of(master) as client:
        try:
            return bool(client.set(_PROBE, "1", px=100))
        except redis.RedisError:
            return False


def answered(master: ValkeyServer, error: str) -> int:
    """How many times the master has answered that error (`OOM`, `READONLY`, `NOSCRIPT`, ...) since it was started."""
    with client_of(master) as client:
        told = client.info("errorstats").get(f"errorstat_{error}")
        return int(told["count"]) if told else 0


def run_id(master: ValkeyServer) -> str:
    """What changes at each start of the server."""
    with client_of(master) as client:
        return str(client.info("server")["run_id"])


def _set(name: str, value: int) -> Callable[[ValkeyServer], None]:
    def do(master: ValkeyServer) -> None:
        with client_of(master) as client:
            client.config_set(name, value)

    return do


def _replicate_nobody(master: ValkeyServer) -> None:
    """Make it the replica of a master that does not exist: it answers reads, and refuses writes."""
    with client_of(master) as client:
        client.replicaof("127.0.0.1", free_port())


def _replicate_no_more(master: ValkeyServer) -> None:
    with client_of(master) as client:
        client.replicaof("NO", "ONE")


def _restart_empty(master: ValkeyServer) -> None:
    """Kill it, throw away what it had on disk, and start it: it has forgotten every lock and every count."""
    with client_of(master) as client:
        folder = Path(str(client.config_get("dir")["dir"]))
    master.kill()
    shutil.rmtree(folder / "appendonlydir")
    master.start()


REFUSED = MasterFault("refused", ValkeyServer.kill, ValkeyServer.start)
HUNG = MasterFault("hung", ValkeyServer.pause, ValkeyServer.resume)
FORGETFUL = MasterFault("restarted without its data", _restart_empty, lambda _: None)
OUT_OF_MEMORY = MasterFault("out of memory", _set("maxmemory", 1), _set("maxmemory", 0), "OOM")
READ_ONLY = MasterFault("read-only", _replicate_nobody, _replicate_no_more, "READONLY")
TOO_FEW_REPLICAS = MasterFault(
    "too few replicas", _set("min-replicas-to-write", 1), _set("min-replicas-to-write", 0), "NOREPLICAS"
)

LASTING_FAULTS = (REFUSED, HUNG, OUT_OF_MEMORY, READ_ONLY, TOO_FEW_REPLICAS)
"""Those in which a master takes no writes until it is healed."""


def forget_scripts(masters: Sequence[ValkeyServer]) -> None:
    for master in masters:
        with client_of(master) as client:
            client.script_flush()


def forget_keys(masters: Sequence[ValkeyServer]) -> int:
    """Remove every key of every master: locks, lines, hints and counters. Returns how many there were."""
    count = 0
    for master in masters:
        with client_of(master) as client:
            count += int(client.dbsize())
            client.flushall()
    return count
