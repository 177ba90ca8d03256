"""The services of an API on storage in memory, and what its clients and its operator see of it."""

import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import aiohttp
import structlog

from claimsvc.application.readiness import Readiness
from claimsvc.domain import (
    AlreadyRedeemed,
    ApiKey,
    AuditEntry,
    ClaimOptions,
    Code,
    CodeCounts,
    CodeExpired,
    CodeNotClaimed,
    CodesAdded,
    Erased,
    HeldLock,
    IdempotencyKey,
    KeyReused,
    LockNotHeld,
    LockReleased,
    LocksSeen,
    NewCode,
    NotYourClaim,
    PatternTooSmall,
    Redeemed,
    RefusedRow,
    Replayed,
    RowsRefused,
    Scope,
    UnknownClaim,
    UnknownCode,
    UnknownCoupon,
    WaitingInstance,
)
from claimsvc.http.framework.services import Services
from claimsvc.ports import HealthCheck, PendingOutcome
from tests.http.memory_tickets import MemoryTickets
from tests.http.ticketed import HeldTickets
from tests.support.admin import ADMIN_DIGEST
from tests.support.memory_store import MemoryStore


class MemoryLockAdmin:
    """`ports.LockAdmin` of three masters, one of them down; the instance `web-1` holds the lock of `plenty`."""

    def __init__(self) -> None:
        self.released: list[tuple[str, str, str, str | None]] = []
        self.failure: Exception | None = None

    async def held(self) -> LocksSeen:
        if self.failure is not None:
            raise self.failure
        waiting = (WaitingInstance("web-2", 0.25),)
        lock = HeldLock("plenty", "web-1", True, 0.0025, {"a:1": 19.9, "b:1": 19.8}, "", waiting)
        return LocksSeen(("a:1", "b:1", "c:1"), ("c:1",), () if self.released else (lock,), True)

    async def look(self, coupon_name: str) -> list[HeldLock]:
        return [lock for lock in (await self.held()).locks if lock.coupon_name == coupon_name]

    async def release(
        self, coupon_name: str, *, actor: str, reason: str, request_id: str | None = None
    ) -> LockReleased | LockNotHeld:
        if self.failure is not None:
            raise self.failure
        if coupon_name != "plenty" or self.released:
            return LockNotHeld()
        self.released.append((coupon_name, actor, reason, request_id))
        return LockReleased(coupon_name, ("web-1",), ("a:1", "b:1"), ("c:1",), True)


class MemoryCodes:
    """`ports.Codes` of a service in which no coupon has any, and none is ever added."""

    async def add(
        self,
        coupon_name: str,
        rows: AsyncIterator[Sequence[NewCode | RefusedRow]],
        entry: AuditEntry,
        *,
        atomic: bool,
        uses: int | None = None,
        idempotency_key: IdempotencyKey | None = None,
    ) -> CodesAdded | RowsRefused | UnknownCoupon | Replayed | KeyReused:
        async for _ in rows:
            pass
        return UnknownCoupon()

    async def generate(
        self,
        coupon_name: str,
        count: int,
        pattern: str,
        expires_at: datetime | None,
        entry: AuditEntry,
        idempotency_key: IdempotencyKey | None = None,
        *,
        uses: int | None = None,
    ) -> CodesAdded | PatternTooSmall | CodeExpired | UnknownCoupon | Replayed | KeyReused:
        return UnknownCoupon()

    async def redeem(
        self, code: str, entry: AuditEntry, idempotency_key: IdempotencyKey | None = None, *, user_id: str | None = None
    ) -> Redeemed | AlreadyRedeemed | CodeExpired | CodeNotClaimed | NotYourClaim | UnknownCode | Replayed | KeyReused:
        return UnknownCode()

    async def redeem_claim(
        self, claim_id: str, entry: AuditEntry, idempotency_key: IdempotencyKey | None = None
    ) -> UnknownClaim:
        return UnknownClaim()

    async def unredeem(
        self, code: str, entry: AuditEntry, idempotency_key: IdempotencyKey | None = None
    ) -> UnknownCode:
        return UnknownCode()

    async def unredeem_claim(
        self, claim_id: str, entry: AuditEntry, idempotency_key: IdempotencyKey | None = None
    ) -> UnknownClaim:
        return UnknownClaim()

    async def check(self, code: str, user_id: str | None) -> UnknownCode:
        return UnknownCode()

    async def code(self, code: str) -> Code | None:
        return None

    async def of_coupon(self, coupon_name: str, *, after: str, limit: int) -> list[Code]:
        return []

    async def count(self, coupon_type: str | None) -> CodeCounts:
        return CodeCounts()

    async def changed_elsewhere(self) -> set[str | None]:
        return set()

    async def expire_due(self) -> int:
        return 0

    async def types(self) -> list[str | None]:
        return []


@dataclass
class MemoryKeys:
    """`ports.ApiKeys`: a key `key-for-<scope>` for each scope."""

    found: dict[bytes, ApiKey] = field(
        default_factory=lambda: {
            hashlib.sha256(f"key-for-{scope}".encode()).digest(): ApiKey(
                f"of-{scope}", scope, frozenset({scope}), datetime(2026, 1, 1, tzinfo=UTC)
            )
            for scope in Scope
        }
    )

    async def create(self, *_: object, **__: object) -> ApiKey:
        raise NotImplementedError

    async def revoke(self, *_: object, **__: object) -> bool:
        raise NotImplementedError

    async def all(self) -> list[ApiKey]:
        raise NotImplementedError

    async def of_digest(self, digest: bytes) -> ApiKey | None:
        return self.found.get(digest)


class MemoryExports:
    """`ports.Exports` of a `MemoryStore`; after each part it raises what the store fails with."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def claims(self, coupon_name: str, *, with_codes: bool = False) -> AsyncIterator[bytes] | UnknownCoupon:
        return self._parts(coupon_name) if coupon_name in self._store.amounts else UnknownCoupon()

    async def _parts(self, coupon_name: str) -> AsyncIterator[bytes]:
        for claim in self._store.claims_of[coupon_name]:
            yield f"{claim.id}\r\n".encode()
            await self._store.check()


class MemoryErasure:
    """`ports.Erasure` of nothing, which remembers who was to be forgotten, and for whom."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    async def erase(self, user_id: str, *, actor: str, request_id: str | None = None) -> Erased:
        self.asked.append((user_id, actor))
        return Erased("erased-nobody")


class MemoryStrategy:
    """Admits claims in a `MemoryStore`."""

    name = "memory"

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    def claim(self, coupon_name: str, user_id: str, options: ClaimOptions | None = None) -> PendingOutcome:
        answer = PendingOutcome()
        self._store.wants.append(options)
        answer.follow(self._store.claim_unit(coupon_name, user_id))
        return answer

    def claim_first(self, coupon_type: str | None, user_id: str, options: ClaimOptions | None = None) -> PendingOutcome:
        return self.claim(next(iter(self._store.of_type(coupon_type)), ""), user_id, options)

    async def drain(self) -> None: ...


@dataclass
class Observations:
    """`api.HttpObserver` that remembers everything."""

    seen: list[tuple[str, str, int]] = field(default_factory=list)

    def observed(self, method: str, route: str, status: int, seconds: float) -> None:
        assert seconds >= 0
        self.seen.append((method, route, status))


@dataclass
class Service:
    """The API as a client and as its operator see it."""

    url: str
    port: int
    store: MemoryStore
    observations: Observations
    client: aiohttp.ClientSession
    lines: list[structlog.typing.EventDict]

    async def is_healthy(self) -> bool:
        """A good request works, as before."""
        user = f"after-{len(self.observations.seen)}"
        body = {"user_id": user, "coupon_name": "plenty"}
        async with self.client.post(f"{self.url}/api/coupons/claim", json=body) as response:
            return response.status == 201 and (await response.json())["user_id"] == user


def memory_services(store: MemoryStore, observations: Observations, **changes: object) -> Services:
    checks: dict[str, HealthCheck] = {"postgresql": store.check}
    return Services(
        **{  # type: ignore[arg-type]
            "strategy": MemoryStrategy(store),
            "coupons": store,
            "claim_records": store,
            "campaigns": store,
            "transitions": store,
            "codes": MemoryCodes(),
            "count_codes": MemoryCodes().count,
            "audience": store,
            "tickets": MemoryTickets(),
            "progress": HeldTickets(),
            "lock_admin": MemoryLockAdmin(),
            "audit": store,
            "exports": MemoryExports(store),
            "erasure": MemoryErasure(),
            "api_keys": MemoryKeys(),
            "readiness": Readiness(checks),
            "observer": observations,
            "begin_render_metrics": lambda _: lambda: (b"claimsvc_up 1\n", "text/plain; version=0.0.4; charset=utf-8"),
            "admin_key_digests": (ADMIN_DIGEST,),
            "body_timeout_seconds": 0.2,
            **changes,
        }
    )
