"""A store in memory: honest within one process, and gone with it."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from uuid_utils.compat import uuid7

from claimsvc.domain import (
    PLAIN,
    AlreadyCancelled,
    AlreadyClaimed,
    AmountBelowClaimed,
    Attempt,
    AuditEntry,
    AuditFilter,
    AuditPosition,
    Campaign,
    Cancelled,
    Claim,
    Claimed,
    ClaimOptions,
    ClaimOutcome,
    ClaimPosition,
    ClaimState,
    Confirmed,
    Coupon,
    CouponDetail,
    CouponExists,
    CouponFilter,
    CouponState,
    Eligibility,
    EligibilityRules,
    HoldExpired,
    IdempotencyKey,
    KeyReused,
    ListedCoupon,
    ListKind,
    ListReplaced,
    PeriodIsEmpty,
    Replayed,
    SoldOut,
    StrategyName,
    UnknownClaim,
    UnknownCoupon,
    UserClaim,
)
from claimsvc.domain.coupon_changes import changes_of
from claimsvc.domain.outcomes import Outcome, is_stored
from claimsvc.ports import ChangeAnswer, Decision

_T = TypeVar("_T", bound=Outcome)


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

    async def claim_unit(self, coupon_name: str, user_id: str) -> ClaimOutcome:
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

    async def look(self, attempts: Sequence[Attempt]) -> list[ClaimOutcome | None]:
        return [None for _ in attempts]

    def _told_again(self, idempotency_key: IdempotencyKey | None) -> Replayed | KeyReused | None:
        kept = self.kept.get(idempotency_key.key) if idempotency_key is not None else None
        if idempotency_key is None or kept is None:
            return None
        first, answer = kept
        return Replayed(answer, first.request_id) if first.fingerprint == idempotency_key.fingerprint else KeyReused()

    def _keep(self, idempotency_key: IdempotencyKey | None, answer: _T) -> _T:
        if idempotency_key is not None and is_stored(answer, keeps_all=idempotency_key.keeps_all):
            self.kept[idempotency_key.key] = idempotency_key, answer
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
        idempotency_key: IdempotencyKey | None = None,
        **_: object,
    ) -> Coupon | CouponExists | Replayed | KeyReused:
        self._fail()
        return self._told_again(idempotency_key) or self._keep(
            idempotency_key, self._create(name, amount, strategy, campaign)
        )

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

    async def listed(self, matching: CouponFilter, *, after: str | None, limit: int) -> list[ListedCoupon]:
        self._fail()
        found = [self._listed(name) for name in sorted(self.amounts) if name > (after or "")]
        return [
            each
            for each in found
            if matching.search.lower() in each.coupon.name.lower()
            and each.state in matching.states
            and (matching.type is None or (each.type or "") == matching.type)
        ][:limit]

    def _listed(self, name: str) -> ListedCoupon:
        campaign, coupon = self.campaign_of[name], self._now(name)
        if campaign.archived_at is not None:
            state = CouponState.ARCHIVED
        elif campaign.paused:
            state = CouponState.PAUSED
        else:
            state = CouponState.OPEN if coupon.remaining_amount else CouponState.SOLD_OUT
        return ListedCoupon(coupon, state, campaign.type, campaign.benefit, campaign.starts_at, campaign.ends_at)

    async def claims(self, coupon_name: str, *, after: ClaimPosition | None, limit: int) -> list[Claim] | UnknownCoupon:
        self._fail()
        if coupon_name not in self.amounts:
            return UnknownCoupon()
        start = (after.claimed_at, after.id) if after is not None else None
        later = [each for each in self.claims_of[coupon_name] if start is None or (each.claimed_at, each.id) > start]
        return later[:limit]

    async def claims_of_user(
        self, user_id: str, *, states: Collection[ClaimState], before: ClaimPosition | None, limit: int
    ) -> list[UserClaim]:
        self._fail()
        claims = [*(each for made in self.claims_of.values() for each in made), *self.ended.values()]
        end = (before.claimed_at, before.id) if before is not None else None
        found = [
            each
            for each in claims
            if each.user_id == user_id and each.state in states and (end is None or (each.claimed_at, each.id) < end)
        ]
        found.sort(key=lambda each: (each.claimed_at, each.id), reverse=True)
        terms = self.campaign_of
        return [UserClaim(each, terms[each.coupon_name].type, terms[each.coupon_name].benefit) for each in found][
            :limit
        ]

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
        idempotency_key: IdempotencyKey | None = None,
    ) -> ChangeAnswer:
        self._fail()
        return self._told_again(idempotency_key) or self._keep(
            idempotency_key, self._change(name, change, entry, archive)
        )

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
        if change:
            changes = changes_of(self.amounts[name], self.campaign_of[name], change)
            entry = replace(entry, details={**entry.details, "changes": changes})
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
        self, claim_id: str, idempotency_key: IdempotencyKey | None = None, **_: object
    ) -> Confirmed | HoldExpired | AlreadyCancelled | UnknownClaim | Replayed | KeyReused:
        claim = await self.claim(claim_id)
        if claim is None:
            return UnknownClaim()
        answer = AlreadyCancelled(claim) if claim_id in self.ended else Confirmed(claim)
        return self._told_again(idempotency_key) or self._keep(idempotency_key, answer)

    async def record(self, entry: AuditEntry) -> None:
        self.entries_kept.append(entry)

    async def entries(self, wanted: AuditFilter, *, after: AuditPosition | None, limit: int) -> list[AuditEntry]:
        self._fail()
        return []

    async def eligibility(
        self, coupon_name: str, user_id: str, options: ClaimOptions, idempotency_key: IdempotencyKey | None = None
    ) -> Eligibility | UnknownCoupon | Replayed | KeyReused:
        self._fail()
        campaign = self.campaign_of.get(coupon_name)
        if campaign is None:
            return self._told_again(idempotency_key) or self._keep(idempotency_key, UnknownCoupon())
        rules = campaign.rules or EligibilityRules()
        found = Eligibility(tuple(rules.broken(options.attributes, options.token, lambda _: False)))
        return self._told_again(idempotency_key) or self._keep(idempotency_key, found)

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
        return [name for name, rules in self.campaign_of.items() if rules.type == coupon_type]

    async def claimable_coupons(self, coupon_type: str | None, *, after: str | None, limit: int) -> list[str]:
        names = self.of_type(coupon_type)
        return names[names.index(after) + 1 if after is not None else 0 :][:limit]

    async def check(self) -> None:
        self._fail()

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure
