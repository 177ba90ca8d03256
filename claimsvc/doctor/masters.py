"""What the masters of the lock say of themselves, and what is to be thought of it."""

import secrets
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from claimsvc.config import Settings
from claimsvc.doctor.findings import Findings, judge_answer, judge_clock, ok, warning, wrong
from claimsvc.redis.masters import Client

_SUBJECT = "masters"
_SAMPLES = 5
_PROBE_MILLISECONDS = 1000


@dataclass(frozen=True, slots=True)
class MasterFacts:
    """One master. `info` is what INFO says; `appendfsync` is None if the master does not tell, and `refusal` is what it
    said to a write, empty if it took one."""

    name: str
    info: dict[str, Any]
    appendfsync: str | None
    answer_seconds: float
    clock_ahead_seconds: float
    refusal: str

    @property
    def can_vote(self) -> bool:
        """Whether a lock can be taken on it."""
        return self.info.get("role") == "master" and not self.refusal


def name_of(url: str) -> str:
    """A master as it is called everywhere: where it is, without its password."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or 6379}"


async def read_master(url: str, timeout_seconds: float) -> MasterFacts:
    """Ask a master about itself, and have it keep a key for a second.

    Args:
        timeout_seconds: bound on each answer.

    Raises:
        RedisError: it cannot be asked.
    """
    client = Client.from_url(
        url,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=timeout_seconds,
        retry=Retry(NoBackoff(), 0),
        decode_responses=True,
    )
    try:
        info: dict[str, Any] = await client.info()
        answer_seconds, clock_ahead_seconds = await _clock(client)
        return MasterFacts(
            name_of(url), info, await _appendfsync(client), answer_seconds, clock_ahead_seconds, await _refusal(client)
        )
    finally:
        await client.aclose()


async def _clock(client: Redis) -> tuple[float, float]:
    """A usual answer's time, and how far its clock is ahead: by the quickest answer, which leaves the least doubt."""
    samples: list[tuple[float, float]] = []
    for _ in range(_SAMPLES):
        asked_at, began = time.time(), time.perf_counter()
        whole, microseconds = await client.time()
        seconds = time.perf_counter() - began
        samples.append((seconds, whole + microseconds / 1e6 - asked_at - seconds / 2))
    samples.sort()
    return samples[len(samples) // 2][0], samples[0][1]


async def _appendfsync(client: Redis) -> str | None:
    try:
        return str((await client.config_get("appendfsync"))["appendfsync"])
    except (ResponseError, KeyError):  # those that are rented often hide it
        return None


async def _refusal(client: Redis) -> str:
    try:
        await client.set(f"claim:doctor:{secrets.token_hex(8)}", "1", px=_PROBE_MILLISECONDS)
    except ResponseError as error:
        return str(error)
    return ""


def judge_master(facts: MasterFacts, settings: Settings) -> Findings:
    """One master by itself."""
    subject, info = f"master {facts.name}", facts.info
    program, version = (
        ("Valkey", info["valkey_version"]) if "valkey_version" in info else ("Redis", info["redis_version"])
    )
    yield ok(subject, f"{program} {version} answers in {facts.answer_seconds * 1000:.1f} ms")
    if info.get("role") != "master":
        yield wrong(
            subject,
            f"it is a replica of {info.get('master_host')}:{info.get('master_port')}",
            "name independent masters; a lock that is copied later is none",
        )
    elif facts.refusal:
        yield wrong(subject, f"it takes no writes: {facts.refusal.rstrip('.')}", "do what it says")
    elif info.get("connected_slaves"):
        yield warning(
            subject,
            "it has a replica: if that takes over, it has forgotten the newest locks",
            "run it without one; the other masters stand in for it",
        )
    if info.get("cluster_enabled"):
        yield wrong(subject, "it is a node of a cluster", "run it by itself: scripts here make the names of keys")
    yield from judge_answer(subject, facts.answer_seconds)
    yield from judge_clock(subject, facts.clock_ahead_seconds)
    yield from _judge_memory(subject, info)
    yield from _judge_persistence(subject, facts)
    # Each worker has a connection more, on which it waits for hints.
    needed = settings.workers * (settings.redis_pool_size + 1)
    if (most := info.get("maxclients")) is not None and needed > most:
        yield wrong(
            subject,
            f"an instance opens up to {needed} connections, and maxclients is {most}",
            "raise maxclients, or lower CLAIMSVC_REDIS_POOL_SIZE or CLAIMSVC_WORKERS",
        )


def _judge_memory(subject: str, info: dict[str, Any]) -> Findings:
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        mend = "CONFIG SET maxmemory-policy noeviction, and in its configuration file"
        if info.get("maxmemory"):
            yield wrong(subject, f"maxmemory-policy is {policy}: it forgets locks when its memory is full", mend)
        else:
            yield warning(subject, f"maxmemory-policy is {policy}, which only a missing maxmemory keeps at bay", mend)


def _judge_persistence(subject: str, facts: MasterFacts) -> Findings:
    mend = "CONFIG SET appendonly yes and appendfsync always, and in its configuration file"
    if not facts.info.get("aof_enabled"):
        yield wrong(subject, "appendonly is no: after a restart it has forgotten who holds a lock", mend)
    elif facts.appendfsync is None:
        yield warning(subject, "it does not tell its appendfsync", "see to it that it is `always`")
    elif facts.appendfsync != "always":
        found = f"appendfsync is {facts.appendfsync}: after a crash it may have forgotten the newest locks"
        yield warning(subject, found, mend)
    if facts.info.get("aof_last_write_status", "ok") != "ok":
        yield wrong(subject, "its last write to disk has failed", "look at its log and at the disk")


def judge_masters(answers: Sequence[MasterFacts | RedisError | TimeoutError], settings: Settings) -> Findings:
    """All of them: each by itself, and together."""
    reached = [answer for answer in answers if isinstance(answer, MasterFacts)]
    for url, answer in zip(settings.redis_urls, answers, strict=True):
        if isinstance(answer, MasterFacts):
            yield from judge_master(answer, settings)
        else:
            found = f"it cannot be used: {str(answer).rstrip('.') or type(answer).__name__}"
            yield wrong(f"master {name_of(url)}", found, "start it, or correct its place in CLAIMSVC_REDIS_URLS")
    count = len(answers)
    # A replica, one that takes no writes, and a server's second name have no vote of their own.
    votes = len({facts.info.get("run_id") for facts in reached if facts.can_vote})
    if votes <= count // 2:
        yield wrong(_SUBJECT, f"{votes} of {count} can vote, which is no majority: no lock can be had", "see above")
    elif count == 1:
        yield warning(_SUBJECT, "there is one: while it is down, no lock can be had", "run 3 or 5")
    else:
        yield ok(_SUBJECT, f"{votes} of {count} can vote; {votes - count // 2 - 1} more may fail")
    yield from _judge_independence(reached, settings)


def _judge_independence(reached: Sequence[MasterFacts], settings: Settings) -> Findings:
    by_run: dict[str, list[str]] = defaultdict(list)
    for facts in reached:
        by_run[str(facts.info.get("run_id"))].append(facts.name)
    for names in by_run.values():
        if len(names) > 1:
            found = f"{' and '.join(names)} are the same server: its one vote counts {len(names)} times"
            yield wrong(_SUBJECT, found, "name each server once in CLAIMSVC_REDIS_URLS")
    hosts = Counter(urlsplit(url).hostname for url in settings.redis_urls)
    for host, masters in hosts.items():
        if masters > 1:
            yield warning(_SUBJECT, f"{masters} of them are on {host}, and fail with it", "run each on its own machine")
