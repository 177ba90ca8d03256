"""A user's claims: found in any coupon and state, in order, with codes and benefits, by look-ups in indexes."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from claimsvc.domain import EVERY_CLAIM_STATE, Campaign, ClaimPosition, ClaimState, StrategyName, UserClaim
from claimsvc.postgres import Repositories
from claimsvc.postgres.claims import _AFTER_EVERY_CLAIM, _CLAIMS_OF_USER
from tests.support.databases import administrate
from tests.support.storage import create_coupon, open_storage

_START = datetime(2026, 1, 1, tzinfo=UTC)
_STATES = ["active", "held", "cancelled", "expired"]


@pytest.fixture
async def storage(database_url: str) -> AsyncIterator[Repositories]:
    async with open_storage(database_url) as (opened, _):
        for number in range(3):
            campaign = Campaign(type="t", benefit={"text": "a coffee"}) if number == 1 else Campaign()
            await create_coupon(opened, f"c{number}", 1000, StrategyName.REDLOCK, campaign)
        yield opened


def put(database_url: str, rows: list[tuple[int, str, int, str]]) -> None:
    """Write claims as they are: the coupon, the user, the second and the state of each."""
    administrate(database_url, "DELETE FROM codes; DELETE FROM user_claims")
    for place, (coupon, user, second, state) in enumerate(rows):
        stored = "active" if state == "held" else state
        at = _START + timedelta(seconds=second)
        administrate(
            database_url,
            f"""
            INSERT INTO user_claims (id, coupon_name, user_id, state, claimed_at, slot, held_until, ended_at)
            VALUES ('{UUID(int=place)}', 'c{coupon}', '{user}', '{stored}', '{at}', {place + 1},
                {f"'{at}'" if state == "held" else "NULL"}, {f"'{at}'" if stored != "active" else "NULL"})
            """,
        )


async def listed(
    storage: Repositories, user: str, states: frozenset[ClaimState] = EVERY_CLAIM_STATE, page: int = 2
) -> list[UserClaim]:
    found: list[UserClaim] = []
    before: ClaimPosition | None = None
    while True:
        part = await storage.claims.claims_of_user(user, states=states, before=before, limit=page)
        found += part
        if len(part) < page:
            return found
        before = ClaimPosition(part[-1].claim.claimed_at, part[-1].claim.id)


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from(["ann", "bob"]), st.integers(0, 3), st.sampled_from(_STATES)),
        max_size=8,
    ),
    states=st.sets(st.sampled_from(ClaimState), min_size=1),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
async def test_any_claims_are_listed_once_newest_first(
    storage: Repositories, database_url: str, rows: list[tuple[int, str, int, str]], states: set[ClaimState]
) -> None:
    put(database_url, rows)
    expected = [
        (second, str(UUID(int=place)), f"c{coupon}", state)
        for place, (coupon, user, second, state) in enumerate(rows)
        if user == "ann" and state in states
    ]
    found = await listed(storage, "ann", frozenset(states))
    assert [
        (int((each.claim.claimed_at - _START).total_seconds()), each.claim.id, each.claim.coupon_name, each.claim.state)
        for each in found
    ] == sorted(expected, reverse=True)
    for each in found:
        expected_terms = ("t", {"text": "a coffee"}) if each.claim.coupon_name == "c1" else (None, None)
        assert (each.type, each.benefit) == expected_terms


async def test_a_claim_has_its_code_but_a_hold_does_not_show_it_yet(storage: Repositories, database_url: str) -> None:
    put(database_url, [(0, "ann", 1, "active"), (0, "ann", 2, "held")])
    administrate(
        database_url,
        f"INSERT INTO codes (coupon_name, code, claim_id) VALUES ('c0', 'ONE', '{UUID(int=0)}'), "
        f"('c0', 'TWO', '{UUID(int=1)}')",
    )
    assert [each.claim.code for each in await listed(storage, "ann")] == [None, "ONE"]


async def test_the_user_is_looked_up_and_no_coupon_s_claims_are_read_through(database_url: str) -> None:
    """The generic plan on tables without statistics, which a connection may keep while they grow."""
    url = database_url.replace("postgresql+psycopg", "postgresql")
    parameters = {"user_id": "ann", "states": ["active"], "limit": 20, **_AFTER_EVERY_CLAIM}
    parameters |= {"wants_current": True, "wants_ended": True}
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off")
        cursor = await connection.execute(f"EXPLAIN {_CLAIMS_OF_USER}", parameters)
        plan = "\n".join(line for (line,) in await cursor.fetchall())
    assert "user_claims_one_active_per_slot" in plan
    assert "user_claims_ended_idx" in plan
    assert "user_claims_pkey" not in plan
    assert "Seq Scan on user_claims" not in plan
