"""Held codes that expire before their holds: nobody is given one, and no unit is lost or made."""

import asyncio
from collections import Counter

import pytest

from claimsvc.domain import (
    AuditFilter,
    Claim,
    Claimed,
    ClaimState,
    CodeState,
    Confirmed,
    HoldContinued,
    HoldExpired,
    Replayed,
    SoldOut,
)
from tests.behaviour.test_codes import (
    ENTRY,
    HELD,
    add,
    claimed,
    execute,
    here,
    instances,
    new_codes,
    offer,
    stock,
)
from tests.behaviour.test_life_of_a_claim import keyed
from tests.support.strategy_instances import Instance

__all__ = ["here", "instances"]

_WAYS = pytest.mark.parametrize("way", ["confirmed", "claimed again"])


async def expire(instance: Instance, *codes: str) -> None:
    listed = ", ".join(f"'{code}'" for code in codes)
    await execute(instance, f"UPDATE codes SET expires_at = now() WHERE code IN ({listed})")


async def confirm(instance: Instance, held: Claim, way: str) -> object:
    if way == "confirmed":
        return await instance.storage.claims.confirm(held.id)
    return await instance.strategy.claim("spring", held.user_id)


async def state_of(instance: Instance, code: str) -> tuple[CodeState, str | None]:
    found = await instance.storage.codes.code(code)
    assert found is not None
    return found.state, found.claim_id


@_WAYS
async def test_a_hold_whose_code_expires_is_confirmed_with_the_next(here: Instance, way: str) -> None:
    await offer(here, 4)
    held = await claimed(here, "ada", HELD)
    assert (await claimed(here, "bob")).code == "C-2"
    await expire(here, "C-1")
    outcome = await confirm(here, held, way)
    assert isinstance(outcome, Confirmed | HoldContinued)
    assert (outcome.claim.id, outcome.claim.state, outcome.claim.code) == (held.id, ClaimState.ACTIVE, "C-3")
    assert await here.storage.claims.claim(held.id) == outcome.claim
    assert await state_of(here, "C-1") == (CodeState.VOIDED, None)
    assert await state_of(here, "C-3") == (CodeState.CLAIMED, held.id)
    assert await stock(here) == (3, 1)
    assert await confirm(here, held, "confirmed") == Confirmed(outcome.claim)
    assert await stock(here) == (3, 1)


@_WAYS
async def test_a_hold_for_which_no_code_is_left_is_refused_and_ends(here: Instance, way: str) -> None:
    await offer(here, 2)
    held = await claimed(here, "ada", HELD)
    await claimed(here, "bob")
    await expire(here, "C-1")
    outcome = await confirm(here, held, way)
    assert isinstance(outcome, HoldExpired if way == "confirmed" else SoldOut)
    ended = await here.storage.claims.claim(held.id)
    assert ended is not None
    assert (ended.state, ended.code) == (ClaimState.EXPIRED, None)
    assert await state_of(here, "C-1") == (CodeState.VOIDED, None)
    assert await stock(here) == (1, 0)
    entries = await here.storage.audit_log.entries(AuditFilter("claim", held.id), after=None, limit=9)
    assert [entry.action for entry in entries if entry.action != "claim.make"] == ["claim.expire"]
    await add(here, new_codes(1, "more"))
    assert (await claimed(here, "ada")).code == "more-1"
    assert await stock(here) == (2, 0)


async def test_of_two_dead_codes_and_one_free_one_becomes_valid(here: Instance) -> None:
    await offer(here, 3)
    held = [await claimed(here, user, HELD) for user in ("ada", "bob")]
    await expire(here, "C-1", "C-2")
    outcomes = await asyncio.gather(*(here.strategy.claim("spring", each.user_id) for each in held))
    assert Counter(map(type, outcomes)) == {HoldContinued: 1, SoldOut: 1}
    assert [each.claim.code for each in outcomes if isinstance(each, HoldContinued)] == ["C-3"]
    assert await stock(here) == (1, 0)


async def test_who_claims_first_gets_the_free_code_and_the_hold_ends(here: Instance) -> None:
    await offer(here, 2)
    held = await claimed(here, "ada", HELD)
    await expire(here, "C-1")
    outcomes = await asyncio.gather(
        here.strategy.claim("spring", "bob"), here.storage.claims.confirm(held.id), here.strategy.claim("spring", "eve")
    )
    kinds = Counter(map(type, outcomes))
    assert kinds[Claimed] + kinds[Confirmed] == 1
    assert await stock(here) == (1, 0)


async def test_a_hold_that_is_confirmed_under_a_key_is_confirmed_once(here: Instance) -> None:
    await offer(here, 3)
    held = await claimed(here, "ada", HELD)
    await expire(here, "C-1")
    key = keyed("k").idempotency_key
    first = await here.storage.claims.confirm(held.id, key)
    again = await here.storage.claims.confirm(held.id, key)
    assert isinstance(first, Confirmed)
    assert first.claim.code == "C-2"
    assert isinstance(again, Replayed)
    assert again.answer == first
    assert await stock(here) == (2, 1)


async def test_what_was_confirmed_keeps_its_code_when_that_expires(here: Instance) -> None:
    await offer(here, 2)
    mine = await claimed(here, "ada")
    await expire(here, "C-1")
    assert await here.storage.claims.confirm(mine.id) == Confirmed(mine)
    assert mine.code == "C-1"
    assert await stock(here) == (2, 1)


async def test_a_hold_that_was_made_before_the_codes_is_confirmed_without_one(here: Instance) -> None:
    await offer(here, 0)
    held = await claimed(here, "ada", HELD)
    await add(here, new_codes(1))
    confirmed = await here.storage.claims.confirm(held.id)
    assert isinstance(confirmed, Confirmed)
    assert confirmed.claim.code is None


async def test_a_generated_code_that_has_expired_is_not_replaced(here: Instance) -> None:
    await offer(here, 0)
    await here.storage.codes.generate("spring", 1, "AAAA-9999", None, ENTRY)
    mine = await claimed(here, "ada")
    assert mine.code is not None
    await expire(here, mine.code)
    await here.storage.claims.cancel(mine.id, ENTRY)
    assert await stock(here) == (0, 0)
