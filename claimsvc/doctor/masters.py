"""Reads facts about the masters of the lock, and judges them."""

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
from claimsvc.redis.troubles import trouble_of

_SUBJECT = "masters"
_SAMPLES = 5
_PROBE_MILLISECONDS = 1000


@dataclass(frozen=True, slots=True)
class MasterFacts:
    """Facts about one master.

    Args:
        name: host and port.
        info: the answer to INFO.
        appendfsync: the setting; None if the master does not report it.
        answer_seconds: usual response time.
        clock_ahead_seconds: how far its clock is ahead of this machine's.
        refusal: the error with which it refused a write; empty if it accepted one.
    """

    name: str
    info: dict[str, Any]
    appendfsync: str | None
    answer_seconds: float
    clock_ahead_seconds: float
    refusal: str

    @property
    def can_vote(self) -> bool:
        """Whether it is a master and accepts writes."""
        return self.info.get("role") == "master" and not self.refusal


def name_of(url: str) -> str:
    """Return the name of a master, host and port, without its password."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or 6379}"


async def read_master(url: str, timeout_seconds: float) -> MasterFacts:
    """Read the facts about a master. Writes a key that expires after a second.

    Args:
        url: of the master.
        timeout_seconds: bound on each answer.

    Raises:
        RedisError: it does not answer.
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
    """Return the median response time, and how far the clock is ahead: by the quickest answer, the most precise one."""
    samples: list[tuple[float, float]] = []
    for _ in range(_SAMPLES):
        sent_at, started = time.time(), time.perf_counter()
        unix_seconds, microseconds = await client.time()
        seconds = time.perf_counter() - started
        samples.append((seconds, unix_seconds + microseconds / 1e6 - sent_at - seconds / 2))
    samples.sort()
    return samples[len(samples) // 2][0], samples[0][1]


async def _appendfsync(client: Redis) -> str | None:
    try:
        return str((await client.config_get("appendfsync"))["appendfsync"])
    except (ResponseError, KeyError):  # hosted servers often disable CONFIG
        return None


async def _refusal(client: Redis) -> str:
    try:
        await client.set(f"claim:doctor:{secrets.token_hex(8)}", "1", px=_PROBE_MILLISECONDS)
    except ResponseError as error:
        return str(error)
    return ""


def judge_master(facts: MasterFacts, settings: Settings) -> Findings:
    """Judge one master."""
    subject, info = f"master {facts.name}", facts.info
    program, version = (
        ("Valkey", info["valkey_version"]) if "valkey_version" in info else ("Redis", info["redis_version"])
    )
    yield ok(subject, f"{program} {version} answers in {facts.answer_seconds * 1000:.1f} ms")
    if info.get("role") != "master":
        yield wrong(
            subject,
            f"it is a replica of {info.get('master_host')}:{info.get('master_port')}",
            "configure independent masters; replication is asynchronous, so replicas cannot vote",
        )
    elif facts.refusal:
        yield wrong(subject, f"it refuses writes: {facts.refusal.rstrip('.')}", "fix what the error says")
    elif info.get("connected_slaves"):
        yield warning(
            subject,
            "it has a replica, which lacks the newest locks if it takes over",
            "run it without a replica; the other masters keep the lock available",
        )
    if info.get("cluster_enabled"):
        yield wrong(
            subject, "it is a node of a cluster", "run it standalone: the lock's scripts use keys they do not declare"
        )
    yield from judge_answer(subject, facts.answer_seconds)
    yield from judge_clock(subject, facts.clock_ahead_seconds)
    yield from _judge_memory(subject, info)
    yield from _judge_persistence(subject, facts)
    # Each worker has one more connection, on which it waits for hints; and two for messages, if it combines.
    needed = settings.workers * (settings.redis_pool_size + (3 if settings.combining == "on" else 1))
    if (most := info.get("maxclients")) is not None and needed > most:
        yield wrong(
            subject,
            f"an instance opens up to {needed} connections, and maxclients is {most}",
            "raise maxclients, or lower CLAIMSVC_REDIS_POOL_SIZE or CLAIMSVC_WORKERS",
        )


def _judge_memory(subject: str, info: dict[str, Any]) -> Findings:
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        mend = "CONFIG SET maxmemory-policy noeviction, and set it in the configuration file"
        if info.get("maxmemory"):
            yield wrong(subject, f"maxmemory-policy is {policy}: it evicts locks when its memory is full", mend)
        else:
            yield warning(subject, f"maxmemory-policy is {policy}: it would evict locks if maxmemory were set", mend)


def _judge_persistence(subject: str, facts: MasterFacts) -> Findings:
    mend = "CONFIG SET appendonly yes and appendfsync always, and set them in the configuration file"
    if not facts.info.get("aof_enabled"):
        yield wrong(subject, "appendonly is no: it loses its locks when it restarts", mend)
    elif facts.appendfsync is None:
        yield warning(subject, "it does not report appendfsync", "make sure that it is `always`")
    elif facts.appendfsync != "always":
        found = f"appendfsync is {facts.appendfsync}: it may lose the newest locks in a crash"
        yield warning(subject, found, mend)
    if facts.info.get("aof_last_write_status", "ok") != "ok":
        yield wrong(subject, "its last write to disk failed", "check its log and its disk")


def judge_masters(answers: Sequence[MasterFacts | RedisError | TimeoutError], settings: Settings) -> Findings:
    """Judge each master, and all of them together.

    Args:
        answers: the facts, or the error, of each master in `settings.redis_urls`, in this order.
        settings: of the service.
    """
    reached = [answer for answer in answers if isinstance(answer, MasterFacts)]
    for url, answer in zip(settings.redis_urls, answers, strict=True):
        if isinstance(answer, MasterFacts):
            yield from judge_master(answer, settings)
        else:
            trouble = trouble_of(answer)
            yield wrong(f"master {name_of(url)}", f"it cannot be used: {trouble.found}", trouble.mend)
    count = len(answers)
    # A replica, a server that refuses writes, and a second URL of the same server have no vote.
    votes = len({facts.info.get("run_id") for facts in reached if facts.can_vote})
    if votes <= count // 2:
        yield wrong(
            _SUBJECT, f"{votes} of {count} can vote, not a majority: locks cannot be taken", "fix the masters above"
        )
    elif count == 1:
        yield warning(_SUBJECT, "there is only one: while it is down, locks cannot be taken", "run 3 or 5")
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
            yield wrong(_SUBJECT, found, "list each server once in CLAIMSVC_REDIS_URLS")
    hosts = Counter(urlsplit(url).hostname for url in settings.redis_urls)
    for host, masters in hosts.items():
        if masters > 1:
            yield warning(_SUBJECT, f"{masters} of them run on {host} and fail with it", "run each on its own machine")
