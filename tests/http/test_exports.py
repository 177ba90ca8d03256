"""Exports: whole, in order, safe to open, and never to be taken for whole when they are not."""

import asyncio
import csv
import io
from collections.abc import AsyncIterator

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from claimsvc.domain import Claimed, StrategyName, UnknownCoupon
from claimsvc.errors import UnavailableError
from claimsvc.postgres import Repositories
from claimsvc.postgres.database import Database
from claimsvc.postgres.exports import PostgresExports
from claimsvc.postgres.pool import open_pool
from claimsvc.representations.csv_cells import guarded
from claimsvc.representations.user_lists import ListFormat, ListReader
from tests.http.asking import claim, get
from tests.http.memory_services import Service
from tests.support.admin import ADMIN
from tests.support.databases import administrate
from tests.support.observed import Observed
from tests.support.program import claimsvc_here
from tests.support.storage import LIMITS, attempts, create_coupon, open_storage

PATH = "/api/coupons/plenty/claims/export"
_USERS = ["=1+1", "+1", "-1", "@SUM(A1)", '=HYPERLINK("http://x","y")', 'a"b', "a,b", "x=1", "'quoted", "'+1", "a;=1%"]
_USERS += ["a%3B=1%25"]
_ANY_USER = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)
_TRICKY_USER = st.text(st.sampled_from("=+-@;,'\"%3B25a|"), min_size=1, max_size=12)


@pytest.fixture
async def storage(database_url: str) -> AsyncIterator[Repositories]:
    async with open_storage(database_url) as (opened, _):
        yield opened


@pytest.fixture
async def exports(database_url: str) -> AsyncIterator[PostgresExports]:
    """Those of pages of three claims."""
    async with open_pool(database_url, LIMITS, Observed()) as pool:
        yield PostgresExports(Database(pool, 3.0), page_claims=3)


async def exported(exports: PostgresExports, name: str = "spring") -> tuple[list[dict[str, str]], int]:
    """The lines of an export, and how many parts it came in."""
    parts = await exports.claims(name)
    assert not isinstance(parts, UnknownCoupon)
    found = [part async for part in parts]
    text = b"".join(found).decode("ascii")
    assert text.endswith("\r\n")
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True)), len(found)


async def test_every_claim_is_exported_once_and_no_cell_is_a_formula(
    storage: Repositories, exports: PostgresExports, database_url: str
) -> None:
    await create_coupon(storage, "spring", 100, StrategyName.REDLOCK)
    outcomes = await storage.admission.admit(attempts(*_USERS))
    ids = [outcome.claim.id for outcome in outcomes if isinstance(outcome, Claimed)]
    administrate(
        database_url,
        f"""
        UPDATE user_claims SET state = 'cancelled', ended_at = '2026-01-02T03:04:05.5+00' WHERE id = '{ids[0]}';
        UPDATE user_claims SET held_until = '2126-01-02T03:04:05+00' WHERE id = '{ids[1]}'
        """,
    )
    lines, parts = await exported(exports)
    assert parts == 1 + len(_USERS) // 3
    by_id = {line["id"]: line for line in lines}
    assert len(lines) == len(by_id) == len(_USERS)
    users = [by_id[each]["user_id"] for each in ids]
    assert users == [guarded(user) for user in _USERS]
    assert (by_id[ids[0]]["state"], by_id[ids[0]]["ended_at"]) == ("cancelled", "2026-01-02T03:04:05.500000Z")
    assert (by_id[ids[1]]["state"], by_id[ids[1]]["expires_at"]) == ("held", "2126-01-02T03:04:05.000000Z")
    assert (by_id[ids[2]]["state"], by_id[ids[2]]["expires_at"], by_id[ids[2]]["ended_at"]) == ("active", "", "")


@given(users=st.sets(_ANY_USER | _TRICKY_USER, min_size=1, max_size=30))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
async def test_an_export_is_safe_under_any_delimiter_and_loads_as_the_users_it_has(
    storage: Repositories, exports: PostgresExports, database_url: str, users: set[str]
) -> None:
    await create_coupon(storage, "-spring", 1000, StrategyName.REDLOCK)
    administrate(database_url, "DELETE FROM user_claims; UPDATE coupons SET remaining_amount = amount")
    await storage.admission.admit(attempts(*users, on="-spring"))
    parts = await exports.claims("-spring")
    assert not isinstance(parts, UnknownCoupon)
    file = b"".join([part async for part in parts])
    assert ";" not in file.decode()
    for delimiter in ",;\t":
        for row in csv.reader(io.StringIO(file.decode(), newline=""), delimiter=delimiter):
            assert not [cell for cell in row if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    reader = ListReader(ListFormat.CSV)
    assert sorted([*reader.feed(file), *reader.end()]) == sorted(users)


async def test_an_export_while_claims_are_made_has_all_that_were_made_before(
    storage: Repositories, exports: PostgresExports
) -> None:
    await create_coupon(storage, "-spring", 10_000, StrategyName.REDLOCK)
    await storage.admission.admit(attempts(*(f"early-{number}" for number in range(20)), on="-spring"))
    over = asyncio.Event()

    async def claim_on() -> None:
        number = 0
        while not over.is_set():
            await storage.admission.admit(attempts(f"late-{number}", on="-spring"))
            number += 1

    claiming = asyncio.create_task(claim_on())
    lines, parts = await exported(exports, "-spring")
    over.set()
    await claiming
    users = [line["user_id"] for line in lines]
    assert parts > 7
    assert sorted(users[:20]) == sorted(f"early-{number}" for number in range(20))
    assert users[20:] == [f"late-{number}" for number in range(len(users) - 20)]
    assert {line["coupon_name"] for line in lines} == {"'-spring"}
    assert [line["claimed_at"] for line in lines] == sorted(line["claimed_at"] for line in lines)


async def test_a_coupon_without_claims_is_a_line_of_names_and_none_at_all_is_told(
    storage: Repositories, exports: PostgresExports
) -> None:
    await create_coupon(storage, "spring", 1, StrategyName.REDLOCK)
    assert await exported(exports) == ([], 1)
    assert await exports.claims("autumn") == UnknownCoupon()


async def test_over_http_it_is_streamed_as_a_file(service: Service) -> None:
    for user in ("ann", "bob"):
        await claim(service, user=user)
    async with service.client.get(service.url + PATH, headers=ADMIN) as response:
        assert (response.status, response.content_type) == (200, "text/csv")
        assert response.headers["Transfer-Encoding"] == "chunked"
        assert response.headers["Content-Disposition"] == 'attachment; filename="plenty-claims.csv"'
        assert response.headers["X-Request-ID"]
        assert len((await response.text()).splitlines()) == 2
    async with service.client.head(service.url + PATH, headers=ADMIN) as response:
        assert (response.status, response.content_type, await response.read()) == (200, "text/csv", b"")
    status, problem, _ = await get(service, "/api/coupons/none/claims/export", headers=ADMIN)
    assert (status, problem["type"]) == (404, "/problems/unknown-coupon")
    assert await service.is_healthy()


async def test_an_export_that_fails_midway_has_no_end_and_the_log_says_why(service: Service) -> None:
    await claim(service)
    service.store.failure = UnavailableError("gone", dependency="postgresql")
    async with service.client.get(service.url + PATH, headers=ADMIN) as response:
        assert response.status == 200
        with pytest.raises(aiohttp.ClientError):
            await response.read()
    service.store.failure = None
    assert await service.is_healthy()
    line = next(each for each in service.lines if each["path"] == PATH)
    assert (line["status"], line["log_level"]) == (503, "warning")


async def test_a_client_that_leaves_midway_is_no_defect(service: Service) -> None:
    await service.store.create_coupon("huge", 100_000, StrategyName.REDLOCK)
    [made] = [await service.store.claim_unit("huge", "ann")]
    assert isinstance(made, Claimed)
    service.store.claims_of["huge"] *= 100_000
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    head = "\r\n".join(f"{name}: {value}" for name, value in {"Host": "h", **ADMIN}.items())
    writer.write(f"GET /api/coupons/huge/claims/export HTTP/1.1\r\n{head}\r\n\r\n".encode())
    await reader.readexactly(1)
    writer.transport.abort()
    while not service.lines:
        await asyncio.sleep(0.01)
    assert [(line["status"], line["log_level"]) for line in service.lines] == [(200, "info")]


async def test_the_command_prints_the_same(storage: Repositories, database_url: str) -> None:
    await create_coupon(storage, "spring", 5, StrategyName.REDLOCK)
    await storage.admission.admit(attempts("ada"))
    told = claimsvc_here("claims", "export", "spring", CLAIMSVC_DATABASE_URL=database_url)
    assert (told.returncode, told.stderr) == (0, "")
    assert [line["user_id"] for line in csv.DictReader(io.StringIO(told.stdout))] == ["ada"]
    told = claimsvc_here("claims", "export", "autumn", CLAIMSVC_DATABASE_URL=database_url)
    assert (told.returncode, "no coupon autumn" in told.stderr) == (1, True)
