"""A service in memory behind the real HTTP server: honest within one process, and gone with it."""

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import aiohttp
import structlog
from aiohttp import web
from uuid_utils.compat import uuid7

from claimsvc.domain import (
    PLAIN,
    AlreadyCancelled,
    AlreadyClaimed,
    AlreadyRedeemed,
    AmountBelowClaimed,
    ApiKey,
    Attempt,
    AuditEntry,
    AuditFilter,
    AuditPosition,
    Campaign,
    Cancelled,
    Claim,
    Claimed,
    ClaimOptions,
    ClaimPosition,
    ClaimState,
    Code,
    CodeCounts,
    CodeExpired,
    CodeNotClaimed,
    CodesAdded,
    Confirmed,
    Coupon,
    CouponDetail,
    CouponExists,
    Eligibility,
    Erased,
    HeldLock,
    HoldExpired,
    IdempotencyKey,
    KeyReused,
    ListKind,
    ListReplaced,
    LockNotHeld,
    LockReleased,
    LocksSeen,
    NewCode,
    Outcome,
    PatternTooSmall,
    PeriodIsEmpty,
    Redeemed,
    RefusedRow,
    Replayed,
    RowsRefused,
    Rules,
    Scope,
    SoldOut,
    StrategyName,
    UnknownClaim,
    UnknownCode,
    UnknownCoupon,
    WaitingInstance,
)
from claimsvc.http.app import create_runner
from claimsvc.http.framework.services import Services
from claimsvc.ports import ChangeAnswer, Decision, HealthCheck, PendingOutcome

ADMIN_KEY = "an-admin-key"
ADMIN_KEY_DIGEST = hashlib.sha256(ADMIN_KEY.encode()).hexdigest()
ADMIN = {"Authorization": f"Bearer {ADMIN_KEY}"}


_T = TypeVar("_T")


class MemoryStore:
    """`ports.Strategy` and `ports.Storage` in a dictionary: right for one process, gone with it."""

    name = "memory"

    def __init__(self) -> None:
        self.amounts: dict[str, Coupon] = {}
        self.claims_of: dict[str, list[Claim]] = {}
        self.kept: dict[str, tuple[IdempotencyKey, Any]] = {}
        self.ended: dict[str, Claim] = {}
        self.campaign_of: dict[str, Campaign] = {}
        self.entries_kept: list[AuditEntry] = []
        self.lists: dict[tuple[str, ListKind], set[str]] = {}
        self.wants: list[ClaimOptions | None] = []
        self.failure: Exception | None = None

    async def claim_unit(self, coupon_name: str, user_id: str) -> Outcome:
        self._fail()
        coupon = self.amounts.get(coupon_name)
        if coupon is None:
            return UnknownCoupon()
        claims = self.claims_of[coupon_name]
        for held in claims:
            if held.user_id == user_id:
                return AlreadyClaimed(held)
        if len(claims) >= coupon.amount:
            return SoldOut()
        claimed_at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(microseconds=len(claims))
        claims.append(Claim(str(uuid7()), coupon_name, user_id, ClaimState.ACTIVE, claimed_at))
        return Claimed(claims[-1])

    async def drain(self) -> None: ...

    async def admit(self, attempts: Sequence[Attempt]) -> list[Decision]:
        return [await self.claim_unit(attempt.coupon_name, attempt.user_id) for attempt in attempts]

    async def look(self, attempts: Sequence[Attempt]) -> list[Outcome | None]:
        return [None for _ in attempts]

    def _told_again(self, once: IdempotencyKey | None) -> Replayed | KeyReused | None:
        kept = self.kept.get(once.key) if once is not None else None
        if once is None or kept is None:
            return None
        first, answer = kept
        return Replayed(answer, first.request_id) if first.fingerprint == once.fingerprint else KeyReused()

    def _keep(self, once: IdempotencyKey | None, answer: _T) -> _T:
        if once is not None:
            self.kept[once.key] = once, answer
        return answer

    async def create_coupon(
        self, name: str, amount: int, strategy: StrategyName, campaign: Campaign = PLAIN
    ) -> Coupon | CouponExists:
        made = await self.create(name, amount, strategy, campaign)
        return made if isinstance(made, Coupon) else CouponExists()

    async def create(
        self,
        name: str,
        amount: int,
        strategy: StrategyName,
        campaign: Campaign,
        once: IdempotencyKey | None = None,
        **_: object,
    ) -> Coupon | CouponExists | Replayed | KeyReused:
        self._fail()
        return self._told_again(once) or self._keep(once, self._create(name, amount, strategy, campaign))

    def _create(self, name: str, amount: int, strategy: StrategyName, campaign: Campaign) -> Coupon | CouponExists:
        if name in self.amounts:
            return CouponExists()
        self.campaign_of[name] = campaign
        self.amounts[name] = Coupon(name, amount, amount, strategy, datetime(2026, 1, 1, tzinfo=UTC))
        self.claims_of[name] = []
        return self.amounts[name]

    def _now(self, name: str) -> Coupon:
        coupon = self.amounts[name]
        return Coupon(
            name, coupon.amount, coupon.amount - len(self.claims_of[name]), coupon.strategy, coupon.created_at
        )

    async def coupon(self, name: str, *, claimants: int) -> CouponDetail | None:
        self._fail()
        if name not in self.amounts:
            return None
        claimed_by = tuple(claim.user_id for claim in self.claims_of[name][:claimants])
        return CouponDetail(self._now(name), claimed_by, self.campaign_of[name])

    async def coupons(self, *, search: str | None, after: str | None, limit: int) -> list[Coupon]:
        self._fail()
        names = sorted(
            name
            for name in self.amounts
            if (search or "").lower() in name.lower()
            and name > (after or "")
            and self.campaign_of[name].archived_at is None
        )
        return [self._now(name) for name in names[:limit]]

    async def claims(self, coupon_name: str, *, after: ClaimPosition | None, limit: int) -> list[Claim] | UnknownCoupon:
        self._fail()
        if coupon_name not in self.amounts:
            return UnknownCoupon()
        start = (after.claimed_at, after.id) if after is not None else None
        later = [each for each in self.claims_of[coupon_name] if start is None or (each.claimed_at, each.id) > start]
        return later[:limit]

    async def claim(self, claim_id: str) -> Claim | None:
        self._fail()
        made = (each for claims in self.claims_of.values() for each in claims if each.id == claim_id)
        return next(made, self.ended.get(claim_id))

    async def change(
        self,
        name: str,
        change: Mapping[str, Any],
        entry: AuditEntry,
        *,
        archive: bool = False,
        once: IdempotencyKey | None = None,
    ) -> ChangeAnswer:
        self._fail()
        return self._told_again(once) or self._keep(once, self._change(name, change, entry, archive))

    def _change(self, name: str, change: Mapping[str, Any], entry: AuditEntry, archive: bool) -> ChangeAnswer:
        if name not in self.amounts:
            return UnknownCoupon()
        claimed = len(self.claims_of[name])
        if change.get("amount", claimed) < claimed:
            return AmountBelowClaimed(claimed)
        rules = {rule: value for rule, value in change.items() if rule != "amount"}
        if archive:
            rules["archived_at"] = datetime(2026, 1, 1, tzinfo=UTC)
        campaign = replace(self.campaign_of[name], **rules)
        if campaign.is_empty():
            return PeriodIsEmpty()
        self.campaign_of[name] = campaign
        self.amounts[name] = replace(self.amounts[name], amount=change.get("amount", self.amounts[name].amount))
        self.entries_kept.append(entry)
        return CouponDetail(self._now(name), (), campaign)

    async def cancel(self, claim_id: str, entry: AuditEntry) -> Cancelled | HoldExpired | UnknownClaim:
        claim = await self.claim(claim_id)
        if claim is None:
            return UnknownClaim()
        if claim_id not in self.ended:
            self.claims_of[claim.coupon_name].remove(claim)
            self.ended[claim_id] = replace(claim, state=ClaimState.CANCELLED, ended_at=claim.claimed_at)
            self.entries_kept.append(entry)
        return Cancelled(self.ended[claim_id])

    async def confirm(
        self, claim_id: str, once: IdempotencyKey | None = None, **_: object
    ) -> Confirmed | HoldExpired | AlreadyCancelled | UnknownClaim | Replayed | KeyReused:
        claim = await self.claim(claim_id)
        if claim is None:
            return UnknownClaim()
        answer = AlreadyCancelled(claim) if claim_id in self.ended else Confirmed(claim)
        return self._told_again(once) or self._keep(once, answer)

    async def record(self, entry: AuditEntry) -> None:
        self.entries_kept.append(entry)

    async def entries(self, asked: AuditFilter, *, after: AuditPosition | None, limit: int) -> list[AuditEntry]:
        self._fail()
        return []

    async def eligibility(
        self, coupon_name: str, user_id: str, options: ClaimOptions, once: IdempotencyKey | None = None
    ) -> Eligibility | UnknownCoupon | Replayed | KeyReused:
        self._fail()
        campaign = self.campaign_of.get(coupon_name)
        if campaign is None:
            return self._told_again(once) or self._keep(once, UnknownCoupon())
        rules = campaign.rules or Rules()
        found = Eligibility(tuple(rules.broken(options.attributes, options.token, lambda _: False)))
        return self._told_again(once) or self._keep(once, found)

    async def replace_list(
        self, coupon_name: str, kind: ListKind, users: AsyncIterator[Sequence[str]], entry: AuditEntry
    ) -> ListReplaced | UnknownCoupon:
        self._fail()
        if coupon_name not in self.amounts:
            return UnknownCoupon()
        self.lists[coupon_name, kind] = {user async for some in users for user in some}
        self.entries_kept.append(entry)
        return ListReplaced(coupon_name, kind, len(self.lists[coupon_name, kind]))

    async def remove_list(self, coupon_name: str, kind: ListKind, entry: AuditEntry) -> ListReplaced | UnknownCoupon:
        self._fail()
        if coupon_name not in self.amounts:
            return UnknownCoupon()
        self.lists.pop((coupon_name, kind), None)
        self.entries_kept.append(entry)
        return ListReplaced(coupon_name, kind, None)

    async def stock(self, names: Sequence[str]) -> list[Coupon]:
        return [self._now(name) for name in names if name in self.amounts]

    def of_type(self, coupon_type: str | None) -> list[str]:
        return [name for name, rules in self.campaign_of.items() if coupon_type in (None, rules.type)]

    async def claimable_coupons(self, coupon_type: str | None) -> list[str]:
        return self.of_type(coupon_type)

    async def check(self) -> None:
        self._fail()

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure


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
        once: IdempotencyKey | None = None,
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
        once: IdempotencyKey | None = None,
    ) -> CodesAdded | PatternTooSmall | CodeExpired | UnknownCoupon | Replayed | KeyReused:
        return UnknownCoupon()

    async def redeem(
        self, code: str, entry: AuditEntry, once: IdempotencyKey | None = None
    ) -> Redeemed | AlreadyRedeemed | CodeExpired | CodeNotClaimed | UnknownCode | Replayed | KeyReused:
        return UnknownCode()

    async def code(self, code: str) -> Code | None:
        return None

    async def count(self, coupon_type: str | None) -> CodeCounts:
        return CodeCounts()

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

    async def claims(self, coupon_name: str) -> AsyncIterator[bytes] | UnknownCoupon:
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
            "storage": store,
            "campaigns": store,
            "transitions": store,
            "codes": MemoryCodes(),
            "count_codes": MemoryCodes().count,
            "audience": store,
            "lock_admin": MemoryLockAdmin(),
            "audit": store,
            "exports": MemoryExports(store),
            "erasure": MemoryErasure(),
            "api_keys": MemoryKeys(),
            "health_checks": checks,
            "observer": observations,
            "render_metrics": lambda _: (b"claimsvc_up 1\n", "text/plain; version=0.0.4; charset=utf-8"),
            "admin_key_digests": (ADMIN_KEY_DIGEST,),
            "body_timeout_seconds": 0.2,
            **changes,
        }
    )


@dataclass(frozen=True, slots=True)
class Running:
    """A server on a free port of this machine."""

    runner: web.AppRunner

    @property
    def port(self) -> int:
        return int(self.runner.addresses[0][1])

    @property
    def connections(self) -> list[web.RequestHandler]:
        """Those that it has, as it knows them."""
        assert self.runner.server is not None
        return self.runner.server.connections


@asynccontextmanager
async def running(app: web.Application, port: int = 0, /, **limits: float) -> AsyncIterator[Running]:
    """Serve, with the limits of `create_runner`; on leaving, accepted requests have 5 s.

    Args:
        port: of this machine; 0 for a free one.
    """
    runner = create_runner(app, **{"header_timeout_seconds": 0.3, "shutdown_grace_seconds": 5, **limits})
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield Running(runner)
    finally:
        await runner.cleanup()


@asynccontextmanager
async def served(app: web.Application, *, header_timeout_seconds: float = 0.3, port: int = 0) -> AsyncIterator[int]:
    """The same for whoever needs only the port."""
    async with running(app, port, header_timeout_seconds=header_timeout_seconds) as server:
        yield server.port
