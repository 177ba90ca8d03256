"""The counts of codes follow every change, whoever makes it: not by the reconciler, which is a minute away."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from claimsvc.domain import AuditEntry, Campaign, Claimed, NewCode, StrategyName
from claimsvc.postgres import Repositories
from claimsvc.postgres.code_changes import take_marks
from claimsvc.postgres.database import Database
from claimsvc.postgres.pool import open_pool
from tests.http.till import BASE, Till, opened
from tests.support.databases import administrate
from tests.support.observed import Observed
from tests.support.program import claimsvc_here
from tests.support.storage import LIMITS, attempts, create_coupon, open_storage
from tests.support.waiting import until

ENTRY = AuditEntry("test", "codes.add", "coupon", "spring")
Counts = tuple[int, int, int, int]
# A second is promised. A test machine that is busy with other tests needs more; that it comes at all is told here.
_PATIENCE_SECONDS = 60.0


@dataclass
class Shop:
    """Two instances, and the counts in Redis."""

    tills: list[Till]
    redis_urls: tuple[str, ...]
    lags: list[float] = field(default_factory=list)

    @property
    def database_url(self) -> str:
        return self.tills[0].database_url

    async def kept(self, coupon_type: str = "welcome") -> Counts | None:
        for url in self.redis_urls:
            async with Redis.from_url(url, decode_responses=True) as master:
                found = await master.hgetall(f"claim:codes:{{{coupon_type}}}")
            if "number" in found:
                uploaded, claimed, redeemed, voided = (
                    int(found[name]) for name in ("uploaded", "claimed", "redeemed", "voided")
                )
                return uploaded, claimed, redeemed, voided
        return None

    async def follow(self, expected: Counts, coupon_type: str = "welcome") -> None:
        """Wait until the counts in Redis are these, and both instances tell them."""
        started = time.monotonic()

        async def are_right() -> bool:
            return await self.kept(coupon_type) == expected

        await until(are_right, f"{expected} of {coupon_type} in Redis", within_seconds=_PATIENCE_SECONDS)
        self.lags.append(time.monotonic() - started)
        for till in self.tills:
            _, told = await till.ask("GET", f"/api/codes?type={coupon_type}")
            assert (told["uploaded"], told["claimed"], told["redeemed"], told["voided"]) == expected

    def command(self, *arguments: str) -> None:
        urls = {"CLAIMSVC_DATABASE_URL": self.database_url, "CLAIMSVC_REDIS_URLS": ",".join(self.redis_urls)}
        done = claimsvc_here(*arguments, **urls, CLAIMSVC_PURGE_AFTER_DAYS="30")
        assert done.returncode == 0, done.stderr


@pytest.fixture
async def shop(database_url: str, redis_urls: tuple[str, ...]) -> AsyncIterator[Shop]:
    async with AsyncExitStack() as stack:
        tills = []
        for _ in range(2):
            url, client = await stack.enter_async_context(opened(database_url, redis_urls))
            tills.append(Till(url, client, database_url))
        yield Shop(tills, redis_urls)


async def test_what_commands_change_is_counted_by_the_instances(shop: Shop, tmp_path: Path) -> None:
    here, there = shop.tills
    await here.offer(type="welcome")
    shop.command("codes", "generate", "spring", "--count", "3", "--pattern", "AAAA-9999")
    await shop.follow((3, 0, 0, 0))
    file = tmp_path / "codes.csv"
    file.write_text("U-1\nU-2\n")
    shop.command("codes", "upload", "spring", str(file), "--partial")
    await shop.follow((5, 0, 0, 0))
    mine, other = await here.claim("ada"), await there.claim("bob")
    await shop.follow((5, 2, 0, 0))
    shop.command("codes", "redeem", mine["code"])
    await shop.follow((5, 2, 1, 0))
    shop.command("claims", "redeem", other["id"])
    await shop.follow((5, 2, 2, 0))
    shop.command("codes", "unredeem", mine["code"], "--reason", "it fell through")
    await shop.follow((5, 2, 1, 0))
    shop.command("coupon", "change", "spring", "--type", "goodbye")
    await shop.follow((0, 0, 0, 0))
    await shop.follow((5, 2, 1, 0), "goodbye")
    print(f"lags: {[f'{lag:.2f}' for lag in shop.lags]}")  # noqa: T201 - with -s


async def test_what_jobs_and_other_instances_change_is_counted(shop: Shop) -> None:
    here, there = shop.tills
    await here.offer("C-1\nC-2\nC-3\n", type="welcome")
    await shop.follow((3, 0, 0, 0))
    await there.claim("ada", hold_seconds=60)
    await shop.follow((3, 1, 0, 0))
    # The sweep returns it: no claim comes to do so.
    administrate(shop.database_url, "UPDATE user_claims SET held_until = now()")
    await shop.follow((3, 0, 0, 0))
    mine = await there.claim("bob")
    assert (await here.ask("POST", f"/api/claims/{mine['id']}/redeem"))[0] == 200
    await shop.follow((3, 1, 1, 0))
    assert (await there.ask("POST", f"/api/claims/{mine['id']}/unredeem", {"reason": "it fell through"}))[0] == 200
    await shop.follow((3, 1, 0, 0))
    assert (await here.ask("DELETE", f"/api/claims/{mine['id']}"))[0] == 200
    await shop.follow((3, 0, 0, 1))
    held = await there.claim("eve", hold_seconds=60)
    await shop.follow((3, 1, 0, 1))
    # A change of the coupon settles its holds, too.
    administrate(shop.database_url, "UPDATE user_claims SET held_until = now() WHERE held_until IS NOT NULL")
    assert (await here.ask("PATCH", BASE, {"paused": True}))[0] == 200
    await shop.follow((3, 0, 0, 1))
    assert (await there.ask("GET", f"/api/claims/{held['id']}"))[1]["state"] == "expired"
    assert (await here.ask("POST", f"{BASE}/archive"))[0] == 200
    administrate(shop.database_url, "UPDATE campaigns SET archived_at = now() - interval '400 days'")
    shop.command("purge")
    await shop.follow((0, 0, 0, 0))


@pytest.mark.parametrize("counts_here", [False, True], ids=["a command", "an instance"])
@pytest.mark.parametrize("own", [None, "vip"], ids=["of the coupon", "of their own"])
async def test_every_way_to_change_codes_tells_of_it(database_url: str, counts_here: bool, own: str | None) -> None:
    """Where nobody counts, by a mark. What changes nothing may tell, too, but what is rolled back leaves no mark."""
    told: set[str | None] = set()
    known = own or "welcome"
    async with open_pool(database_url, LIMITS, Observed()) as pool:
        database = Database(pool, 3.0)
        storage = Repositories.on(database, observer=Observed(), codes_changed=told.update if counts_here else None)
        codes = storage.codes
        await create_coupon(storage, "spring", 5, StrategyName.REDLOCK, Campaign(type=None if own else "welcome"))

        async def rows(*given: str) -> AsyncIterator[Sequence[NewCode]]:
            yield [NewCode(row, code, None, own) for row, code in enumerate(given, 1)]

        async def tells(change: Awaitable[object], *types: str | None) -> None:
            told.clear()
            await change
            marks = await take_marks(database)
            assert (told if counts_here else marks) >= set(types)
            assert not (marks if counts_here or not types else told)

        def over(claim_id: str) -> None:
            administrate(database_url, f"UPDATE user_claims SET held_until = now() WHERE id = '{claim_id}'")

        await tells(codes.add("spring", rows("C-1", "C-2", "C-3", "C-4"), ENTRY, atomic=True), known)
        await tells(storage.campaigns.change("spring", {"type": "welcome"}, ENTRY), "welcome", known)
        await tells(codes.add("spring", rows("C-5", "C-1"), ENTRY, atomic=True))
        await tells(codes.generate("spring", 2, "AAAA-9999", None, ENTRY), "welcome")
        await tells(codes.generate("spring", 2, "A", None, ENTRY))
        made = await storage.admission.admit(attempts("ada", "bob", "eve", "kim", "lee"))
        ids = [each.claim.id for each in made if isinstance(each, Claimed)]
        await tells(codes.redeem("C-1", ENTRY), known)
        await tells(codes.unredeem("C-1", ENTRY), known)
        await tells(codes.redeem_claim(ids[1], ENTRY), known)
        await tells(codes.unredeem_claim(ids[1], ENTRY), known)
        await tells(storage.claims.cancel(ids[0], ENTRY), known)
        over(ids[2])
        await tells(storage.maintenance.settle_holds("spring", limit=10), known)
        over(ids[3])
        await tells(codes.redeem_claim(ids[3], ENTRY), known)
        over(ids[4])
        await tells(storage.campaigns.change("spring", {"paused": True}, ENTRY), known)
        administrate(database_url, "UPDATE codes SET expires_at = now() WHERE claim_id IS NULL")
        await tells(codes.expire_due(), known)
        await tells(storage.campaigns.change("spring", {"type": None}, ENTRY), "welcome", known, None)
        administrate(database_url, "UPDATE campaigns SET archived_at = now() - interval '10 days'")
        await tells(storage.maintenance.purge_coupon("spring", for_days=20, limit=1000, actor="test"))
        await tells(storage.maintenance.purge_coupon("spring", for_days=1, limit=1000, actor="test"), own, None)


@given(st.lists(st.sampled_from(["a", "b", None]), min_size=1, max_size=20), st.integers(1, 3))
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
def test_each_mark_is_taken_by_one_of_those_that_look(
    database_url: str, marks: list[str | None], instances: int
) -> None:
    async def taken() -> list[set[str | None]]:
        async with AsyncExitStack() as stack:
            opened_ones = [await stack.enter_async_context(open_storage(database_url)) for _ in range(instances)]
            return await asyncio.gather(*(each.codes.changed_elsewhere() for each, _ in opened_ones))

    with psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.cursor().executemany(
            "INSERT INTO code_changes (coupon_type) VALUES (%s)", [(each,) for each in marks]
        )
    found = asyncio.run(taken())
    assert set().union(*found) == set(marks)
    assert administrate(database_url, "SELECT count(*) FROM code_changes") == [(0,)]
