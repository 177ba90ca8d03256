"""What the service is compared with: a floor below which no aiohttp handler goes, and the ways of two other systems.

A program: `python -m tests.bench.baselines KIND`, with the service's own settings in CLAIMSVC_* variables. Each is
one process on aiohttp and uvloop, with the service's schema, drivers and pool sizes, and as little else as possible:
no validation beyond JSON, no metrics, no log. What they lack makes them faster, so they flatter nobody here.
"""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
import uvloop
from aiohttp import web
from pottery import AIORedlock
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from uuid_utils.compat import uuid7

from claimsvc.config import Settings, load_settings
from tests.bench.responder import serve_responder

_BACKLOG = 4096
_LOCK_TTL_SECONDS = 20
_LOCK_RETRIES = 3
_LOCK_RETRY_WAIT_SECONDS = 0.5
_REDIS_TIMEOUT_SECONDS = 5.0

# Made once: putting a statement together anew for each claim would cost a quarter of these baselines' CPU.
_LOCK_COUPON = text("SELECT remaining_amount FROM coupons WHERE name = :coupon_name FOR UPDATE")
_HELD_CLAIM = text(
    "SELECT id FROM user_claims WHERE coupon_name = :coupon_name AND user_id = :user_id AND state = 'active'"
)
_DECREMENT = text(
    "UPDATE coupons SET remaining_amount = remaining_amount - 1 WHERE name = :coupon_name AND remaining_amount > 0"
)
_INSERT = text(
    "INSERT INTO user_claims (id, coupon_name, user_id, state, claimed_at) "
    "VALUES (:id, :coupon_name, :user_id, 'active', :claimed_at)"
)

Claim = Callable[[str, str], Awaitable[web.Response]]


def _created(claim_id: str, coupon_name: str, user_id: str, claimed_at: str) -> web.Response:
    """The service's own answer, field by field, so that all answers are of one size."""
    body = {
        "id": claim_id,
        "coupon_name": coupon_name,
        "user_id": user_id,
        "state": "active",
        "claimed_at": claimed_at,
    }
    return web.Response(body=orjson.dumps(body), status=201, content_type="application/json")


def _refused(status: int, slug: str) -> web.Response:
    body = orjson.dumps({"type": f"/problems/{slug}", "status": status})
    return web.Response(body=body, status=status, content_type="application/problem+json")


async def _floor(coupon_name: str, user_id: str) -> web.Response:
    return _created("00000000-0000-7000-8000-000000000000", coupon_name, user_id, "2026-01-01T00:00:00.000000Z")


class _CouponRedlock(AIORedlock):
    _KEY_PREFIX = "claim"


@dataclass(frozen=True, slots=True)
class LockPerClaim:
    """One Redlock for each claim; who finds it taken polls at a fixed interval, and gives up after three more tries."""

    masters: tuple[Redis, ...]
    engine: AsyncEngine

    async def __call__(self, coupon_name: str, user_id: str) -> web.Response:
        for attempt in range(1 + _LOCK_RETRIES):
            if attempt:
                await asyncio.sleep(_LOCK_RETRY_WAIT_SECONDS)
            lock = _CouponRedlock(
                key=f"coupon:{coupon_name}", masters=self.masters, auto_release_time=_LOCK_TTL_SECONDS
            )
            if await lock.acquire(blocking=False):
                try:
                    async with self.engine.begin() as connection:
                        return await _insert_and_decrement(connection, coupon_name, user_id)
                except IntegrityError:
                    return _refused(409, "already-claimed")
                finally:
                    await lock.release()
        return _refused(503, "lock-busy")


@dataclass(frozen=True, slots=True)
class ForUpdate:
    """One transaction for each claim, which locks the coupon's row, looks, inserts and decrements."""

    engine: AsyncEngine

    async def __call__(self, coupon_name: str, user_id: str) -> web.Response:
        who = {"coupon_name": coupon_name, "user_id": user_id}
        async with self.engine.begin() as connection:
            remaining = (await connection.execute(_LOCK_COUPON, who)).scalar_one_or_none()
            if remaining is None:
                return _refused(404, "unknown-coupon")
            if (await connection.execute(_HELD_CLAIM, who)).first() is not None:
                return _refused(409, "already-claimed")
            if not remaining:
                return _refused(409, "sold-out")
            return await _insert_and_decrement(connection, coupon_name, user_id)


async def _insert_and_decrement(connection: AsyncConnection, coupon_name: str, user_id: str) -> web.Response:
    """The two writes of a claim. The answer is sent once the caller's transaction is committed."""
    if (await connection.execute(_DECREMENT, {"coupon_name": coupon_name})).rowcount != 1:
        return _refused(409, "sold-out")
    claim: dict[str, Any] = {
        "id": uuid7(),
        "coupon_name": coupon_name,
        "user_id": user_id,
        "claimed_at": datetime.now(UTC),
    }
    await connection.execute(_INSERT, claim)
    return _created(str(claim["id"]), coupon_name, user_id, claim["claimed_at"].isoformat().replace("+00:00", "Z"))


@asynccontextmanager
async def _open_engine(settings: Settings) -> AsyncIterator[AsyncEngine]:
    # Waiting for a connection has no bound here: 4,096 claims that wait are the load, not a fault.
    engine = create_async_engine(
        settings.database_url, pool_size=settings.database_pool_size, max_overflow=0, pool_timeout=60
    )
    try:
        yield engine
    finally:
        await engine.dispose()


@asynccontextmanager
async def _open_masters(settings: Settings) -> AsyncIterator[tuple[Redis, ...]]:
    pools = [
        BlockingConnectionPool.from_url(
            url,
            max_connections=settings.redis_pool_size,
            timeout=60,
            socket_timeout=_REDIS_TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        for url in settings.redis_urls
    ]
    try:
        yield tuple(Redis(connection_pool=pool) for pool in pools)
    finally:
        for pool in pools:
            await pool.aclose()


async def _claim(kind: str, settings: Settings, stack: AsyncExitStack) -> Claim:
    if kind == "floor":
        return _floor
    engine = await stack.enter_async_context(_open_engine(settings))
    if kind == "for-update":
        return ForUpdate(engine)
    return LockPerClaim(await stack.enter_async_context(_open_masters(settings)), engine)


async def serve(kind: str, sock: socket.socket, settings: Settings) -> None:
    """Serve one of the kinds on a listening socket, for ever."""
    if kind == "responder":
        await serve_responder(sock)
        return
    async with AsyncExitStack() as stack:
        claim = await _claim(kind, settings, stack)

        async def handle(request: web.Request) -> web.Response:
            body = orjson.loads(await request.read())
            return await claim(body["coupon_name"], body["user_id"])

        app = web.Application()
        app.router.add_post("/api/coupons/claim", handle)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.SockSite(runner, sock, backlog=_BACKLOG).start()
        await asyncio.Event().wait()


def main() -> None:
    os.environ.pop("REDIS_URL", None)
    settings = load_settings()
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((settings.host, settings.port))
    sock.listen(_BACKLOG)
    sock.setblocking(False)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(sys.argv[1], sock, settings))


if __name__ == "__main__":
    main()
