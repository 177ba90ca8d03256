"""Who may see and change what."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from claimsvc import domain
from claimsvc.application import audit, claims, codes, coupons, eligibility, locks, queues, redemptions, users
from claimsvc.errors import PermissionDeniedError

OWNER = domain.Caller("user:kim", frozenset(), "kim")
OTHER = domain.Caller("user:lee", frozenset(), "lee")
OPERATOR = domain.operator("os-user:op@host")


class Storage:
    async def claim(self, claim_id: str) -> Any:
        return SimpleNamespace(user_id="kim") if claim_id == "C" else None

    async def coupon(self, name: str, *, claimants: int) -> Any:
        return domain.CouponDetail(cast("Any", None), ("kim", "lee")) if name == "known" else None


class Kept:
    """Notes what reaches the port."""

    def __init__(self) -> None:
        self.entries: list[domain.AuditEntry] = []

    async def cancel(self, claim_id: str, entry: domain.AuditEntry) -> Any:
        self.entries.append(entry)
        return domain.UnknownClaim()


STORAGE = cast("Any", Storage())
# Any use of it fails the test.
UNREACHED = cast("Any", None)


async def test_a_claim_is_cancelled_by_its_user_or_an_operator() -> None:
    kept = Kept()
    refused = await claims.cancel(STORAGE, cast("Any", kept), OTHER, "C", "why")
    assert refused == domain.NotYourClaim()
    assert kept.entries == []
    for caller in (OWNER, OPERATOR):
        await claims.cancel(STORAGE, cast("Any", kept), caller, "C", "why")
    assert [(entry.actor, entry.subject) for entry in kept.entries] == [("claimant", "c"), ("os-user:op@host", "c")]


async def test_a_claim_is_seen_by_its_user() -> None:
    assert await claims.get(STORAGE, OTHER, "C") == domain.NotYourClaim()
    assert await claims.get(STORAGE, OTHER, "D") == domain.UnknownClaim()
    assert not isinstance(await claims.get(STORAGE, OWNER, "C"), domain.NotYourClaim | domain.UnknownClaim)


async def test_claimants_are_shown_to_those_who_see_them() -> None:
    for caller, seen in ((OWNER, ("kim",)), (OPERATOR, ("kim", "lee")), (domain.NOBODY, ())):
        shown = await coupons.get(STORAGE, caller, "known")
        assert isinstance(shown, domain.CouponDetail)
        assert shown.claimed_by == seen


ASKED: list[Callable[[domain.Caller], Awaitable[object]]] = [
    lambda caller: claims.of_coupon(STORAGE, caller, "known", after=None, limit=1),
    lambda caller: claims.export(UNREACHED, caller, "known"),
    lambda caller: coupons.create(UNREACHED, caller, "known", 1, domain.StrategyName.REDLOCK, domain.PLAIN),
    lambda caller: coupons.change(UNREACHED, caller, "known", {}),
    lambda caller: coupons.archive(UNREACHED, caller, "known"),
    lambda caller: codes.generate(UNREACHED, caller, "known", 1, "AAAA", None),
    lambda caller: codes.redeem(UNREACHED, caller, "CODE"),
    lambda caller: codes.get(UNREACHED, caller, "CODE"),
    lambda caller: codes.unredeem(UNREACHED, caller, "CODE", "why"),
    lambda caller: codes.of_coupon(UNREACHED, caller, "known", after="", limit=1),
    lambda caller: redemptions.unredeem(UNREACHED, caller, "C", "why"),
    lambda caller: eligibility.remove_list(UNREACHED, caller, "known", domain.ListKind.DENY),
    lambda caller: locks.held(UNREACHED, caller),
    lambda caller: locks.release(UNREACHED, caller, "known", "why"),
    lambda caller: queues.statuses(UNREACHED, caller),
    lambda caller: queues.ticket(UNREACHED, caller, "T"),
    lambda caller: queues.of_coupon(UNREACHED, UNREACHED, caller, "known", states=(), after=None, limit=1),
    lambda caller: queues.pause(UNREACHED, caller, "known", "why"),
    lambda caller: queues.dead_letters(UNREACHED, caller, after=None, limit=1),
    lambda caller: queues.requeue(UNREACHED, caller, "T", "why"),
    lambda caller: queues.discard(UNREACHED, caller, "T", "why"),
    lambda caller: users.erase(UNREACHED, caller, "kim"),
    lambda caller: audit.entries(UNREACHED, caller, domain.AuditFilter(), after=None, limit=1),
]


@pytest.mark.parametrize("ask", ASKED)
async def test_what_needs_a_scope_is_refused_without_it_before_any_port_is_reached(
    ask: Callable[[domain.Caller], Awaitable[object]],
) -> None:
    for caller in (OWNER, domain.NOBODY):
        with pytest.raises(PermissionDeniedError):
            await ask(caller)


async def test_a_claim_is_redeemed_by_its_user_or_with_the_scope() -> None:
    with pytest.raises(PermissionDeniedError):
        await redemptions.redeem(UNREACHED, UNREACHED, domain.ANYBODY, "C")
    with pytest.raises(PermissionDeniedError):
        await codes.check(UNREACHED, domain.ANYBODY, "CODE")
    assert await redemptions.redeem(STORAGE, UNREACHED, OTHER, "C") == domain.NotYourClaim()
    assert await codes.check(UNREACHED, OTHER, "CODE", "kim") == domain.NotYourClaim()


async def test_a_coupon_that_would_end_before_it_starts_is_refused() -> None:
    now = datetime(2027, 1, 1, tzinfo=UTC)
    campaign = domain.Campaign(starts_at=now, ends_at=now)
    made = await coupons.create(UNREACHED, OPERATOR, "known", 1, domain.StrategyName.REDLOCK, campaign)
    assert made == domain.PeriodIsEmpty()
