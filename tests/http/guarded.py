"""Two services alike, with users' tokens, quotas, keys, CORS and a cap: one for each way that a claim can take."""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import orjson
import pytest
import structlog
from aiohttp import web

from claimsvc.domain import ClaimOptions, ClaimOutcome, IdempotencyKey, Quota, QuotaStanding, StrategyName
from claimsvc.http.app import create_app
from claimsvc.http.server.cors import Cors
from claimsvc.http.server.request_boundary import Handler, RequestBoundary
from claimsvc.http.server.under_way import UnderWay
from claimsvc.identity.tokens import JsonWebTokens, open_tokens
from claimsvc.ports import PendingOutcome, PendingStandings
from tests.http.gated import EXPRESS, ORDINARY, claim_request
from tests.http.memory_services import MemoryStrategy, Observations, memory_services
from tests.support.memory_store import MemoryStore
from tests.support.serving import running
from tests.support.token_issuer import AUDIENCE, ISSUER, Issuer

SHOP = "https://shop.example"
_PROXIES = (ip_network("127.0.0.0/8"),)
_ID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_DATE = re.compile(rb"Date: [^\r]+")
# What differs between two claims that are answered alike.
_OWN = {"duration_ms", "request_id", "exc_info", "queue_wait_ms", "lock_wait_ms", "transaction_ms"}


class KeepingStrategy(MemoryStrategy):
    """Admits claims in memory, and keeps the answers of those with a key as PostgreSQL does: in their transaction."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self.kept: dict[tuple[str, str], tuple[IdempotencyKey, ClaimOutcome]] = {}

    def claim(self, coupon_name: str, user_id: str, options: ClaimOptions | None = None) -> PendingOutcome:
        answer = PendingOutcome()
        self._store.wants.append(options)
        answer.follow(self._decide(coupon_name, user_id, options.idempotency_key if options is not None else None))
        return answer

    async def _decide(self, coupon_name: str, user_id: str, key: IdempotencyKey | None) -> ClaimOutcome:
        if key is None:
            return await self._store.claim_unit(coupon_name, user_id)
        self._store.kept = {
            kept.key: (kept, outcome) for kept, outcome in self.kept.values() if kept.caller == key.caller
        }
        told = self._store._told_again(key)
        if told is not None:
            return told
        outcome = await self._store.claim_unit(coupon_name, user_id)
        self._store._keep(key, outcome)
        if key.key in self._store.kept:
            self.kept[key.caller, key.key] = self._store.kept[key.key]
        return outcome


@dataclass
class CountingQuotas:
    """`ports.Quotas` that allows so many requests of each subject, ever."""

    quotas: Sequence[Quota]
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    is_defect: bool = False

    def begin(self, subjects: Mapping[str, str]) -> PendingStandings:
        pending: PendingStandings = asyncio.get_running_loop().create_future()
        if self.is_defect:
            pending.set_exception(ZeroDivisionError())
        else:
            asyncio.get_running_loop().call_soon(self._resolve, pending, subjects)
        return pending

    async def take(self, subjects: Mapping[str, str]) -> Sequence[QuotaStanding]:
        return await self.begin(subjects)

    def _resolve(self, pending: PendingStandings, subjects: Mapping[str, str]) -> None:
        pending.set_result(self._count(subjects))

    def _count(self, subjects: Mapping[str, str]) -> list[QuotaStanding]:
        standings: list[QuotaStanding] = []
        for quota in self.quotas:
            if quota.name not in subjects:
                continue
            place = quota.name, subjects[quota.name]
            is_exceeded = self.counts[place] >= quota.requests
            self.counts[place] += not is_exceeded
            standings.append(QuotaStanding(quota, is_exceeded, quota.requests - self.counts[place], 2.5))
            if is_exceeded:
                break
        return standings


@dataclass
class Guarded:
    """One of the two services."""

    port: int
    content_type: str
    store: MemoryStore
    strategy: KeepingStrategy
    quotas: CountingQuotas | None
    tokens: JsonWebTokens | None
    observations: Observations

    async def ask(self, *requests: tuple[bytes, str]) -> list[bytes]:
        """The responses to these bodies and further headers, over one connection, without what is their own."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        answers = []
        for body, headers in requests:
            writer.write(claim_request(body, self.content_type, headers))
            async with asyncio.timeout(20):
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"Content-Length: (\d+)", head)
                assert length is not None
                answer = head + await reader.readexactly(int(length[1]))
            answers.append(_DATE.sub(b"Date: D", _ID.sub(b"ID", answer)))
        writer.close()
        return answers


@asynccontextmanager
async def guarded(
    content_type: str, issuer: Issuer | None, folder: Path, *, quotas: Sequence[Quota] = (), **services: Any
) -> AsyncIterator[Guarded]:
    """A service that is asked by this content type: `EXPRESS` or `ORDINARY`.

    Args:
        issuer: of users' tokens; None for none.
        folder: for the issuer's keys.
        quotas: those of the service; empty for none.
        services: further ones.
    """
    store, observations = MemoryStore(), Observations()
    strategy = KeepingStrategy(store)
    await store.create_coupon("plenty", 1000, StrategyName.REDLOCK)
    await store.create_coupon("last", 1, StrategyName.REDLOCK)
    counting = CountingQuotas(quotas) if quotas else None
    async with _tokens_of(issuer, folder) as tokens:
        found = memory_services(
            store,
            observations,
            **{
                "strategy": strategy,
                "tokens": tokens,
                "quotas": counting,
                "cors": Cors([SHOP]),
                "trusted_proxies": _PROXIES,
                "under_way": UnderWay(2, (), timeout_seconds=5),
                **services,
            },
        )
        async with running(create_app(found), header_timeout_seconds=20) as server:
            yield Guarded(server.port, content_type, store, strategy, counting, tokens, observations)


@asynccontextmanager
async def _tokens_of(issuer: Issuer | None, folder: Path) -> AsyncIterator[JsonWebTokens | None]:
    if issuer is None:
        yield None
        return
    async with open_tokens(keys_in(folder, issuer), issuer=ISSUER, audience=AUDIENCE) as tokens:
        yield tokens


def keys_in(folder: Path, *issuers: Issuer) -> str:
    """A file with the issuers' keys."""
    path = folder / "keys.json"
    path.write_bytes(orjson.dumps({"keys": [each.public() for each in issuers]}))
    return str(path)


@contextmanager
def ordinary_requests() -> Iterator[list[str]]:
    """Collects the content types of the requests that aiohttp's task answers."""
    seen: list[str] = []
    answer = RequestBoundary._answer

    async def noted(self: RequestBoundary, request: web.Request, handler: Handler) -> web.StreamResponse:
        seen.append(request.headers.get("Content-Type", ""))
        return await answer(self, request, handler)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RequestBoundary, "_answer", noted)
        yield seen


def essence(line: structlog.typing.EventDict) -> dict[str, object]:
    """A log line, without what is its own; only the names of that."""
    return {name: name if name in _OWN else value for name, value in line.items()}


async def both_ways(
    folder: Path, issuer: Issuer | None, requests: Sequence[tuple[bytes, str]], **options: Any
) -> tuple[list[bytes], int]:
    """Ask two services alike in both ways, and compare everything.

    Returns:
        The responses, and how many of those that were asked by `EXPRESS` aiohttp's task has answered.
    """
    told, lines, seen, ordinary = [], [], [], 0
    for content_type in (EXPRESS, ORDINARY):
        with structlog.testing.capture_logs() as logged, ordinary_requests() as taken:
            async with guarded(content_type, issuer, folder, **options) as service:
                told.append(await service.ask(*requests))
                seen.append(service.observations.seen)
        lines.append([essence(line) for line in logged if line["event"] == "request"])
        ordinary += taken.count(EXPRESS)
    assert told[0] == told[1]
    assert seen[0] == seen[1]
    assert lines[0] == lines[1]
    return told[0], ordinary
