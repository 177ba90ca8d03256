"""Lists of coupons: the state of each at this moment, by whatever it is searched, page by page."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from claimsvc.domain import (
    EVERY_STATE_BUT_ARCHIVED,
    AuditEntry,
    Campaign,
    CouponFilter,
    CouponState,
    ListedCoupon,
    StrategyName,
)
from claimsvc.postgres import Repositories
from tests.support.databases import administrate
from tests.support.storage import attempts, create_coupon, open_storage

_PAST, _FUTURE = datetime(2020, 1, 1, tzinfo=UTC), datetime(2120, 1, 1, tzinfo=UTC)
_TYPES = (None, "t", "T_")


@pytest.fixture
async def storage(database_url: str) -> AsyncIterator[Repositories]:
    """Coupons `<type>-<state>` of each type in each state, some of them with further reasons that come later."""
    async with open_storage(database_url) as (opened, _):
        for kind in _TYPES:
            for state, campaign in (
                ("open", Campaign(type=kind, starts_at=_PAST, ends_at=_FUTURE)),
                ("upcoming", Campaign(type=kind, starts_at=_FUTURE)),
                ("paused", Campaign(type=kind, paused=True, starts_at=_FUTURE)),
                ("ended", Campaign(type=kind, ends_at=_PAST, paused=True)),
                ("sold-out", Campaign(type=kind)),
                ("archived", Campaign(type=kind, ends_at=_PAST)),
            ):
                await create_coupon(opened, f"{kind}-{state}", 1, StrategyName.REDLOCK, campaign)
            await opened.admission.admit(attempts("ann", on=f"{kind}-sold-out"))
            entry = AuditEntry("a", "coupon.archive", "coupon", f"{kind}-archived")
            await opened.campaigns.change(f"{kind}-archived", {}, entry, archive=True)
        yield opened


async def listed(storage: Repositories, matching: CouponFilter, page: int = 3) -> list[ListedCoupon]:
    found: list[ListedCoupon] = []
    while True:
        after = found[-1].coupon.name if found else None
        part = await storage.coupons.listed(matching, after=after, limit=page)
        found += part
        if len(part) < page:
            return found


async def test_every_coupon_has_its_state_and_its_terms(storage: Repositories) -> None:
    found = await listed(storage, CouponFilter(states=frozenset(CouponState)))
    assert [each.coupon.name for each in found] == sorted(f"{kind}-{state}" for kind in _TYPES for state in CouponState)
    for each in found:
        kind, _, state = each.coupon.name.partition("-")
        assert (each.state, str(each.type)) == (state, kind)
    assert {each.state for each in await listed(storage, CouponFilter())} == EVERY_STATE_BUT_ARCHIVED


@given(
    search=st.sampled_from(["", "N", "t-", "T_", "%", "\\", "-", "e"]),
    kind=st.sampled_from([None, "", "t", "T_", "none"]),
    states=st.sets(st.sampled_from(CouponState), min_size=1),
    page=st.integers(1, 20),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
async def test_any_filter_lists_exactly_what_matches(
    storage: Repositories, search: str, kind: str | None, states: set[CouponState], page: int
) -> None:
    every = await listed(storage, CouponFilter(states=frozenset(CouponState)), 100)
    matches: Callable[[ListedCoupon], bool] = lambda each: (  # noqa: E731 - one condition
        search.lower() in each.coupon.name.lower()
        and each.state in states
        and (kind is None or (each.type or "") == kind)
    )
    found = await listed(storage, CouponFilter(search, kind, frozenset(states)), page)
    assert found == [each for each in every if matches(each)]


async def test_a_state_follows_the_clock_and_the_stock(storage: Repositories, database_url: str) -> None:
    async def state_of(name: str) -> str:
        [found] = await listed(storage, CouponFilter(search=name, states=frozenset(CouponState)))
        return found.state

    assert await state_of("t-upcoming") == "upcoming"
    administrate(database_url, "UPDATE campaigns SET starts_at = now() WHERE coupon_name = 't-upcoming'")
    assert await state_of("t-upcoming") == "open"
    soon = datetime.now(UTC) + timedelta(seconds=0.2)
    administrate(database_url, f"UPDATE campaigns SET ends_at = '{soon}' WHERE coupon_name = 't-upcoming'")
    while await state_of("t-upcoming") == "open":
        assert datetime.now(UTC) < soon + timedelta(seconds=5)
    assert await state_of("t-upcoming") == "ended"
    administrate(database_url, "UPDATE coupons SET amount = 2, remaining_amount = 1 WHERE name = 't-sold-out'")
    assert await state_of("t-sold-out") == "open"
