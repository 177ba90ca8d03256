"""The drills: how each failure is staged and undone, what fires, and what the runbook's first command has to print."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from claimsvc.bootstrap import migrate
from tests.observability.dashboards.runbook import entries
from tests.observability.drills.queues import dead_letter, queue_held, tickets_expire
from tests.observability.drills.stack import COUPON, Stack
from tests.support.injectors import disk
from tests.support.injectors.masters import HUNG
from tests.support.injectors.postgres import connect, every_connection_taken, rows_held, terminate_sessions

Staging = Callable[[Stack], AbstractAsyncContextManager[None]]


@dataclass(frozen=True, slots=True)
class Drill:
    """One failure.

    Args:
        name: as the runbook's table has it.
        stage: makes it fail, and mends it on leaving.
        first: the alert that names it: the first entry of the runbook to open.
        also: further pages that fire.
        prints: a regular expression that the first command's output has.
        needs: what this machine lacks for it, in a sentence; None if nothing.
    """

    name: str
    stage: Staging
    first: str
    prints: str
    also: frozenset[str] = frozenset()
    needs: Callable[[], str | None] = lambda: None

    @property
    def command(self) -> str:
        """The command that the entry of the alert begins with."""
        found = re.match(r"\s*\*\*Type\*\* `([^`]+)`", entries()[self.first])
        assert found is not None, f"the entry of {self.first} does not begin with a command"
        return found[1]

    async def run_command(self, stack: Stack) -> str:
        """Run that command as somebody on call does, with the right address in it."""
        words = self.command.split()
        if words[0] == "claimsvc":
            words = [sys.executable, "-m", *words]
        told = {"http://BALANCER:PORT": stack.url, "URL": stack.url, "http://HOST:PORT": stack.instances[-1].url}
        for place, address in told.items():
            words = [word.replace(place, address) for word in words]
        return await stack.command(*words)


@asynccontextmanager
async def _postgres_stopped(stack: Stack) -> AsyncIterator[None]:
    await asyncio.to_thread(stack.cluster.postgres.stop)
    try:
        yield
    finally:
        await asyncio.to_thread(stack.cluster.postgres.start)


@asynccontextmanager
async def _postgres_frozen(stack: Stack) -> AsyncIterator[None]:
    stack.cluster.postgres.pause()
    try:
        yield
    finally:
        stack.cluster.postgres.resume()


@asynccontextmanager
async def _disk_full(stack: Stack) -> AsyncIterator[None]:
    """The disk that has the claims; the write-ahead log is on another."""
    with disk.small_disk(stack.cluster.services) as small:
        placed = disk.claims_on(small, stack.cluster.database_url)
        await asyncio.to_thread(placed.__enter__)
        try:
            await asyncio.to_thread(small.fill)
            yield
        finally:
            await asyncio.to_thread(small.clear)
            await asyncio.to_thread(placed.__exit__, None, None, None)


@asynccontextmanager
async def _connections_taken(stack: Stack) -> AsyncIterator[None]:
    """Somebody has every connection, and keeps those of the service that end."""
    url = stack.cluster.database_url
    with connect(url) as session:
        taking = every_connection_taken(url)
        await asyncio.to_thread(taking.__enter__)
        try:
            for _ in range(5):
                await asyncio.to_thread(terminate_sessions, session)
                await asyncio.sleep(0.3)
            yield
        finally:
            await asyncio.to_thread(taking.__exit__, None, None, None)


@asynccontextmanager
async def _masters_gone(stack: Stack) -> AsyncIterator[None]:
    gone = stack.cluster.masters[:2]
    for master in gone:
        await asyncio.to_thread(HUNG.inflict, master)
    try:
        yield
    finally:
        for master in gone:
            await asyncio.to_thread(HUNG.heal, master)


@asynccontextmanager
async def _instance_frozen(stack: Stack) -> AsyncIterator[None]:
    stack.instances[-1].pause()
    try:
        yield
    finally:
        stack.instances[-1].resume()


@asynccontextmanager
async def _balancer_gone(stack: Stack) -> AsyncIterator[None]:
    await asyncio.to_thread(stack.stop_balancing)
    try:
        yield
    finally:
        await asyncio.to_thread(stack.balance)


@asynccontextmanager
async def _wrong_password(stack: Stack) -> AsyncIterator[None]:
    """All instances are restarted with it, one after the other."""
    right = [dict(instance.settings) for instance in stack.instances]
    for instance in stack.instances:
        url = urlsplit(instance.settings["CLAIMSVC_DATABASE_URL"])
        wrong = url._replace(netloc=f"{url.username}:wrong@{url.hostname}:{url.port}")
        instance.settings["CLAIMSVC_DATABASE_URL"] = urlunsplit(wrong)
        await instance.terminate()
        await asyncio.to_thread(instance.launch)
        await instance.ended()
    try:
        yield
    finally:
        for instance, settings in zip(stack.instances, right, strict=True):
            instance.settings.update(settings)
        await asyncio.gather(*(instance.start() for instance in stack.instances))


@asynccontextmanager
async def _row_locked(stack: Stack) -> AsyncIterator[None]:
    holding = rows_held(stack.cluster.database_url, [COUPON])
    await asyncio.to_thread(holding.__enter__)
    try:
        yield
    finally:
        await asyncio.to_thread(holding.__exit__, None, None, None)


@asynccontextmanager
async def _bad_deployment(stack: Stack) -> AsyncIterator[None]:
    """Two of three instances are new, and want a schema that the database does not have."""
    url = stack.cluster.postgres.url_of("too_old")
    with connect(stack.cluster.database_url) as session:
        session.execute("CREATE DATABASE too_old")
    await asyncio.to_thread(migrate, url)
    new, right = stack.instances[1:], stack.instances[1].settings["CLAIMSVC_DATABASE_URL"]
    for instance in new:
        await instance.terminate()
        instance.settings["CLAIMSVC_DATABASE_URL"] = url
        await instance.start()
    with connect(url) as session:
        session.execute("UPDATE alembic_version SET version_num = '0000'")
    try:
        yield
    finally:
        for instance in new:
            await instance.terminate()
            instance.settings["CLAIMSVC_DATABASE_URL"] = right
            await instance.start()
        with connect(stack.cluster.database_url) as session:
            session.execute("DROP DATABASE too_old WITH (FORCE)")


_USERS_NOTICE = frozenset({"ClaimsvcBalancerErrors", "ClaimsvcProbeFails"})
_NOBODY_IS_READY = _USERS_NOTICE | {"ClaimsvcNotReady"}

DRILLS = (
    Drill(
        "PostgreSQL is stopped", _postgres_stopped, "ClaimsvcPostgresDown", "(?i)database.*refused", _NOBODY_IS_READY
    ),
    Drill(
        "PostgreSQL is frozen",
        _postgres_frozen,
        "ClaimsvcPostgresDown",
        "(?i)database.*(in time|answer)",
        _NOBODY_IS_READY,
    ),
    Drill(
        "The disk with the claims is full",
        _disk_full,
        "ClaimsvcBalancerErrors",
        "failed +503",
        frozenset({"ClaimsvcAvailabilityBurnFast", "ClaimsvcProbeFails"}),
        disk.why_not,
    ),
    Drill(
        "PostgreSQL has no connection left",
        _connections_taken,
        "ClaimsvcPostgresDown",
        "(?i)database.*connections?",
        _NOBODY_IS_READY,
    ),
    Drill(
        "Two of three masters hang",
        _masters_gone,
        "ClaimsvcQuorumLost",
        "(?i)master.*(in time|answer)",
        _NOBODY_IS_READY,
    ),
    Drill(
        "One of three instances is frozen",
        _instance_frozen,
        "ClaimsvcInstanceDown",
        "(?i)timed out",
        # Users notice if it holds the lock of a hot coupon just then: until that expires.
        frozenset({"ClaimsvcBalancerErrors"}),
    ),
    Drill(
        "The balancer is gone",
        _balancer_gone,
        "ClaimsvcBalancerDown",
        "failed +no answer",
        # The last answers that it gives may be errors.
        frozenset({"ClaimsvcProbeFails", "ClaimsvcBalancerErrors"}),
    ),
    Drill(
        "The password is wrong after a restart of all",
        _wrong_password,
        "ClaimsvcAbsent",
        "(?i)password",
        _USERS_NOTICE,
    ),
    Drill(
        "A coupon's row is locked by another session",
        _row_locked,
        "ClaimsvcBalancerErrors",
        "claimed +claimsvc-probe",
        frozenset({"ClaimsvcAvailabilityBurnFast", "ClaimsvcLatencyBurnFast"}),
    ),
    Drill(
        "Two of three instances are deployed and not ready",
        _bad_deployment,
        "ClaimsvcMostNotReady",
        "postgresql: .*schema.*claimsvc migrate",
    ),
    Drill(
        "A queue's row is locked by another session",
        queue_held,
        "ClaimsvcQueueStalled",
        "queue in-line: .* none has been started for",
    ),
    Drill("More users join a queue than it serves", tickets_expire, "ClaimsvcTicketsExpire", "^in-line "),
    Drill(
        "The service has given up a claim of a queue",
        dead_letter,
        "ClaimsvcDeadLetters",
        "dead letters: .*given up the claims of 1 ticket",
    ),
)
