"""Faults of a PostgreSQL, done to a real one by sessions and signals of our own.

All of it blocks: in an event loop call it by `asyncio.to_thread`.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg

from claimsvc.embedded import PostgresServer
from tests.support.waiting import PATIENCE_SECONDS, block_until

_POLL_SECONDS = 0.01

_SERVICE = "application_name = 'claimsvc' AND datname = current_database()"


Session = psycopg.Connection[tuple[object, ...]]


def connect(url: str) -> Session:
    """A session of ours, each statement its own transaction until it begins one."""
    return psycopg.connect(url, autocommit=True, connect_timeout=10, application_name="fault")


def number(url: str, query: str) -> int:
    """The only number that a query yields."""
    with connect(url) as session:
        row = session.execute(query.encode()).fetchone()
        assert row is not None
        return int(str(row[0]))


def terminate_transactions(session: Session) -> int:
    """End the service's sessions that are in a transaction at this moment. Returns how many there were."""
    return _terminate(session, f"{_SERVICE} AND xact_start IS NOT NULL")


def terminate_sessions(session: Session) -> int:
    """End all of the service's sessions. Returns how many there were."""
    return _terminate(session, _SERVICE)


def _terminate(session: Session, which: str) -> int:
    query = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {which}"
    return len(session.execute(query.encode()).fetchall())


def stop_immediately(postgres: PostgresServer) -> None:
    """End it without a checkpoint or a word to its clients; it recovers from its log when it starts."""
    os.kill(postgres.pid, signal.SIGQUIT)
    block_until(lambda: not postgres.running, "PostgreSQL has stopped")


def said(state_dir: Path, text: str) -> int:
    """How many times an embedded PostgreSQL has logged something since its start."""
    return (state_dir / "postgres" / "log").read_text(errors="replace").count(text)


@contextmanager
def rows_held(url: str, coupon_names: Sequence[str]) -> Iterator[None]:
    """Another session holds the row locks of these coupons."""
    with connect(url) as session, session.transaction():
        session.execute("SELECT FROM coupons WHERE name = ANY (%s) ORDER BY name FOR UPDATE", [list(coupon_names)])
        yield


@contextmanager
def queues_held(url: str, coupon_names: Sequence[str]) -> Iterator[None]:
    """Another session holds the row locks of the queues of these coupons."""
    held = "SELECT FROM queues WHERE coupon_name = ANY (%s) ORDER BY coupon_name FOR UPDATE"
    with connect(url) as session, session.transaction():
        session.execute(held, [list(coupon_names)])
        yield


@contextmanager
def every_connection_taken(url: str) -> Iterator[Callable[[], int]]:
    """Take every connection that PostgreSQL has left, and each one that becomes free, until this is left.

    Yields a function that tells how many are held.
    """
    over = threading.Event()
    full = threading.Event()
    held: list[Session] = []

    def hog() -> None:
        while not over.is_set():
            try:
                held.append(connect(url))
            except psycopg.OperationalError:
                full.set()
                time.sleep(_POLL_SECONDS)

    hogs = [threading.Thread(target=hog, daemon=True) for _ in range(4)]
    with ExitStack() as stack:
        for thread in hogs:
            thread.start()

        def let_go() -> None:
            over.set()
            for thread in hogs:
                thread.join()
            for session in held:
                session.close()

        stack.callback(let_go)
        assert full.wait(PATIENCE_SECONDS), "PostgreSQL gave out connections without end"
        yield lambda: len(held)


def deadlock(url: str, first: str, second: str) -> None:
    """Lock two coupons' rows in the order that the service does not, so that both wait for each other.

    Ours is the session that waits longer: PostgreSQL ends the service's transaction, and this returns when it has.

    Args:
        first, second: two coupons that the service admits in one transaction, `first` < `second`.
    """
    assert first < second
    lock = "SELECT FROM coupons WHERE name = %s FOR UPDATE"
    with connect(url) as session, session.transaction(force_rollback=True):
        session.execute("SET LOCAL deadlock_timeout = '60s'")
        session.execute(lock, [second])
        pid = session.info.backend_pid
        holds_first = (
            f"SELECT count(*) FROM pg_stat_activity WHERE {_SERVICE} AND {pid} = ANY (pg_blocking_pids(pid)) "
            "AND pid IN (SELECT pid FROM pg_locks WHERE relation = 'coupons'::regclass)"
        )
        block_until(lambda: number(url, holds_first) > 0, "the service waits for the row")
        session.execute(lock, [first])


def deadlocks(url: str) -> int:
    """How many PostgreSQL has resolved in this database."""
    return number(url, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
