"""A small service in memory that keeps the HTTP contract, for the stress test to find nothing wrong with."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from aiohttp import web

import stress_test

ADMIN_KEY = "an-admin-key-of-this-test"
PAGE_LIMIT = 100
CLAIMED_BY_LIMIT = 1000
Claim = dict[str, str]


@dataclass
class Coupon:
    amount: int
    remaining: int
    claims: list[Claim] = field(default_factory=list)


def problem(status: int, name: str, **members: Any) -> web.Response:
    return web.json_response(
        {"type": f"/problems/{name}", **members}, status=status, content_type="application/problem+json"
    )


class HonestService:
    """Keeps the HTTP contract in memory, where one event loop decides everything; mutants override a step of it."""

    def __init__(self) -> None:
        self.coupons: dict[str, Coupon] = {}
        self.warm_peers: list[object] = []
        self.claim_peers: list[object] = []
        self.claim_ports: list[int] = []

    def app(self) -> web.Application:
        app = web.Application()
        app.add_routes(
            [
                web.get("/livez", self.livez),
                web.post("/api/coupons", self.create),
                web.post("/api/coupons/claim", self.claim),
                web.get("/api/coupons/{name}", self.show),
                web.get("/api/coupons/{name}/claims", self.listing),
                web.get("/api/claims/{id}", self.show_claim),
            ]
        )
        return app

    async def livez(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        self.warm_peers.append(request.transport.get_extra_info("peername"))
        return web.json_response({})

    async def create(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {ADMIN_KEY}":
            return problem(401, "unauthorized")
        body = await request.json()
        self.coupons[body["name"]] = Coupon(body["amount"], body["amount"])
        return web.json_response(body, status=201)

    async def claim(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        self.claim_peers.append(request.transport.get_extra_info("peername"))
        self.claim_ports.append(request.transport.get_extra_info("sockname")[1])
        body = await request.json()
        return await self.decide(request, body["coupon_name"], body["user_id"])

    async def decide(self, request: web.Request, name: str, user: str) -> web.StreamResponse:
        coupon = self.coupons[name]
        held = self.held(coupon, user)
        if held is not None:
            return problem(409, "already-claimed", claim=held)
        if not self.in_stock(coupon):
            return problem(409, "sold-out")
        coupon.remaining -= 1
        return web.json_response(self.record(coupon, name, user), status=201)

    def held(self, coupon: Coupon, user: str) -> Claim | None:
        return next((claim for claim in coupon.claims if claim["user_id"] == user), None)

    def in_stock(self, coupon: Coupon) -> bool:
        return coupon.remaining > 0

    def record(self, coupon: Coupon, name: str, user: str) -> Claim:
        claim = {
            "id": str(uuid4()),
            "coupon_name": name,
            "user_id": user,
            "state": "active",
            "claimed_at": datetime.now(UTC).isoformat(),
        }
        coupon.claims.append(claim)
        return claim

    async def show(self, request: web.Request) -> web.StreamResponse:
        coupon = self.coupons[request.match_info["name"]]
        return web.json_response(
            {
                "name": request.match_info["name"],
                "amount": coupon.amount,
                "remaining_amount": coupon.remaining,
                "claimed_by": [claim["user_id"] for claim in coupon.claims[:CLAIMED_BY_LIMIT]],
            }
        )

    async def listing(self, request: web.Request) -> web.StreamResponse:
        claims = self.coupons[request.match_info["name"]].claims
        start = int(request.query.get("cursor", "0"))
        end = start + min(int(request.query["limit"]), PAGE_LIMIT)
        following = str(end) if end < len(claims) else None
        return web.json_response({"items": claims[start:end], "next_cursor": following})

    async def show_claim(self, request: web.Request) -> web.StreamResponse:
        for coupon in self.coupons.values():
            for claim in coupon.claims:
                if claim["id"] == request.match_info["id"]:
                    return web.json_response(claim)
        return problem(404, "unknown-claim")


@asynccontextmanager
async def serving(service: HonestService, instances: int = 1) -> AsyncIterator[list[str]]:
    """The service on that many free ports, as URLs."""
    runner = web.AppRunner(service.app(), access_log=None)
    await runner.setup()
    try:
        for _ in range(instances):
            await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
        yield [f"http://{host}:{port}" for host, port in runner.addresses]
    finally:
        await runner.cleanup()


@dataclass
class Ended:
    status: int | None
    out: str
    err: str


async def stress(*arguments: str, **environment: str) -> Ended:
    """Run the command line in a process of its own, with only the given settings."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "VIRTUAL_ENV") if name in os.environ}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "stress_test",
        *arguments,
        cwd=Path(stress_test.__file__).parents[1],
        env={**inherited, "PYTHONIOENCODING": "utf-8", **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return Ended(process.returncode, out.decode(), err.decode())
