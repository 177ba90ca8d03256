"""Redeeming claims and codes: as often as allowed, whoever asks at once and whatever connection is cut."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from claimsvc.domain import (
    AlreadyRedeemed,
    AuditEntry,
    Campaign,
    Cancelled,
    Claim,
    Claimed,
    ClaimEnded,
    ClaimNotConfirmed,
    ClaimOptions,
    ClaimRedeemed,
    ClaimState,
    ClaimUnredeemed,
    CodeCheck,
    CodeExpired,
    CodeNotClaimed,
    CodeState,
    CodeUnredeemed,
    HoldExpired,
    IdempotencyKey,
    NewCode,
    NotRedeemed,
    NotYourClaim,
    PurgeReport,
    Redeemed,
    Replayed,
    StrategyName,
    UnknownClaim,
    UnknownCode,
)
from claimsvc.postgres import Repositories
from claimsvc.postgres.code_rows import _FIND
from claimsvc.postgres.redemption_statements import OF_CLAIM as BY_CLAIM
from claimsvc.postgres.redemption_statements import OF_CODE as BY_CODE
from tests.postgres.test_schema import _numbered
from tests.support.databases import administrate
from tests.support.storage import attempts, create_coupon, entries_about, open_storage, open_storage_through_a_proxy

ENTRY = AuditEntry("test", "code.redeem", "code", "?")
OF_CLAIM = AuditEntry("test", "claim.redeem", "claim", "?")
BACK = AuditEntry("test", "code.unredeem", "code", "?", reason="it fell through")
NO_ID = "019b2c5e-7a31-7c42-9f0e-2d4b8a6c1e90"


async def rows(*codes: str) -> AsyncIterator[Sequence[NewCode]]:
    yield [NewCode(row, code) for row, code in enumerate(codes, 1)]


async def offer(storage: Repositories, *codes: str, uses: int | None = None, coupon_uses: int = 1) -> None:
    await create_coupon(storage, "spring", 5, StrategyName.REDLOCK, Campaign(uses=coupon_uses))
    if codes:
        await storage.codes.add("spring", rows(*codes), ENTRY, atomic=True, uses=uses)


async def claimed(storage: Repositories, user_id: str = "ada", hold_seconds: int | None = None) -> Claim:
    [attempt] = attempts(user_id)
    if hold_seconds is not None:
        attempt = type(attempt)(attempt.claim_id, "spring", user_id, ClaimOptions(hold_seconds=hold_seconds))
    [outcome] = await storage.admission.admit([attempt])
    assert isinstance(outcome, Claimed)
    return outcome.claim


def recorded(database_url: str) -> list[tuple[object, ...]]:
    """The numbers of the redemptions, and whether the code says the same as they do."""
    return administrate(
        database_url,
        """
        SELECT number, coalesce((SELECT codes.redeemed_at FROM codes WHERE codes.claim_id = redemptions.claim_id),
            min(redeemed_at) OVER (PARTITION BY claim_id)) = min(redeemed_at) OVER (PARTITION BY claim_id)
        FROM redemptions ORDER BY number
        """,
    )


@pytest.mark.parametrize("uses", [1, 3])
async def test_of_many_at_once_as_many_succeed_as_there_are_uses(
    storage: Repositories, database_url: str, uses: int
) -> None:
    """By the code and by the claim, from two instances."""
    await offer(storage, "C-1", uses=uses)
    claim = await claimed(storage)
    async with open_storage(database_url) as (other, _):
        done = await asyncio.gather(
            *(each.codes.redeem("C-1", ENTRY) for each in (storage, other) for _ in range(5)),
            *(each.codes.redeem_claim(claim.id, OF_CLAIM) for each in (storage, other) for _ in range(5)),
        )
    told = Counter(map(type, done))
    assert told[Redeemed] + told[ClaimRedeemed] == uses
    assert told[AlreadyRedeemed] == 20 - uses
    counts = sorted(
        each.redeemed_count if isinstance(each, ClaimRedeemed) else each.code.redeemed_count
        for each in done
        if isinstance(each, Redeemed | ClaimRedeemed)
    )
    assert counts == list(range(1, uses + 1))
    assert recorded(database_url) == [(number, True) for number in range(1, uses + 1)]
    code = await storage.codes.code("C-1")
    assert code is not None
    assert (code.state, code.uses, code.redeemed_count, code.user_id) == (CodeState.REDEEMED, uses, uses, "ada")


async def test_the_uses_of_an_upload_count_more_than_those_of_its_coupon(storage: Repositories) -> None:
    await offer(storage, "C-1", uses=2, coupon_uses=3)
    await storage.codes.add("spring", rows("C-2"), ENTRY, atomic=True)
    await storage.codes.generate("spring", 1, "AAAA-9999", None, ENTRY, uses=1)
    assert [(await storage.codes.of_coupon("spring", after="", limit=9))[n].uses for n in (0, 1, 2)].count(2) == 1  # type: ignore[index]
    for user_id, uses in (("ada", 2), ("bob", 3), ("eve", 1)):
        claim = await claimed(storage, user_id)
        assert claim.code is not None
        done = [await storage.codes.redeem(claim.code, ENTRY) for _ in range(4)]
        assert [type(each) for each in done] == [Redeemed] * uses + [AlreadyRedeemed] * (4 - uses)
    await storage.campaigns.change("spring", {"uses": 4}, ENTRY)
    assert isinstance(await storage.codes.redeem("C-2", ENTRY), Redeemed)
    assert await storage.codes.redeem("C-1", ENTRY) == AlreadyRedeemed()


async def test_a_claim_without_a_code_is_redeemed_and_then_not_cancelled(
    storage: Repositories, database_url: str
) -> None:
    await offer(storage, coupon_uses=2)
    claim = await claimed(storage)
    for times in (1, 2):
        done = await storage.codes.redeem_claim(claim.id, OF_CLAIM)
        assert isinstance(done, ClaimRedeemed)
        assert (done.claim, done.redeemed_count, done.uses) == (claim, times, 2)
    assert await storage.codes.redeem_claim(claim.id, OF_CLAIM) == AlreadyRedeemed()
    assert await storage.claims.cancel(claim.id, OF_CLAIM) == AlreadyRedeemed()
    for left in (1, 0):
        back = await storage.codes.unredeem_claim(claim.id, BACK)
        assert isinstance(back, ClaimUnredeemed)
        assert (back.redeemed_count, back.redeemed_at is None) == (left, left == 0)
    assert await storage.codes.unredeem_claim(claim.id, BACK) == NotRedeemed()
    assert isinstance(await storage.claims.cancel(claim.id, OF_CLAIM), Cancelled)
    assert isinstance(await storage.codes.redeem_claim(claim.id, OF_CLAIM), ClaimEnded)
    assert await storage.codes.redeem_claim(NO_ID, OF_CLAIM) == UnknownClaim()
    assert await storage.codes.unredeem_claim(NO_ID, OF_CLAIM) == UnknownClaim()
    assert recorded(database_url) == []


@pytest.mark.parametrize("codes", [(), ("C-1", "C-2")])
async def test_of_redeeming_and_cancelling_at_once_one_happens(
    storage: Repositories, database_url: str, codes: tuple[str, ...]
) -> None:
    await offer(storage, *codes)
    claims = [await claimed(storage, user_id) for user_id in ("ada", "bob")]
    async with open_storage(database_url) as (other, _):
        for claim in claims:
            redeemed, cancelled = await asyncio.gather(
                storage.codes.redeem_claim(claim.id, OF_CLAIM), other.claims.cancel(claim.id, OF_CLAIM)
            )
            assert isinstance(redeemed, ClaimRedeemed) != isinstance(cancelled, Cancelled)
            assert isinstance(redeemed, ClaimRedeemed | ClaimEnded)


async def test_a_hold_is_not_redeemed_before_it_is_confirmed_or_when_it_is_over(
    storage: Repositories, database_url: str
) -> None:
    await offer(storage)
    held = await claimed(storage, hold_seconds=60)
    assert await storage.codes.redeem_claim(held.id, OF_CLAIM) == ClaimNotConfirmed()
    administrate(database_url, "UPDATE user_claims SET held_until = now()")
    over = await storage.codes.redeem_claim(held.id, OF_CLAIM)
    assert isinstance(over, HoldExpired)
    assert over.claim.state is ClaimState.EXPIRED


async def test_a_code_that_has_expired_says_so_everywhere(storage: Repositories, database_url: str) -> None:
    await offer(storage, "C-1", "C-2", uses=2)
    claim = await claimed(storage)
    assert isinstance(await storage.codes.redeem("C-1", ENTRY), Redeemed)
    administrate(database_url, "UPDATE codes SET expires_at = now()")
    for code in ("C-1", "C-2"):
        found = await storage.codes.code(code)
        assert found is not None
        assert found.state is CodeState.EXPIRED
        assert await storage.codes.redeem(code, ENTRY) == CodeExpired()
        checked = await storage.codes.check(code, None)
        assert checked == CodeCheck(found, CodeExpired())
    assert await storage.codes.redeem_claim(claim.id, OF_CLAIM) == CodeExpired()


async def test_a_redemption_that_is_taken_back_is_audited_and_the_code_is_claimed_again(
    storage: Repositories, database_url: str
) -> None:
    await offer(storage, "C-1")
    claim = await claimed(storage)
    assert await storage.codes.unredeem("C-1", BACK) == NotRedeemed()
    assert await storage.codes.unredeem("none", BACK) == UnknownCode()
    assert isinstance(await storage.codes.redeem("C-1", ENTRY), Redeemed)
    back = await storage.codes.unredeem("c-1", BACK)
    assert isinstance(back, CodeUnredeemed)
    assert (back.code.state, back.code.redeemed_at, back.code.redeemed_count) == (CodeState.CLAIMED, None, 0)
    entries = await entries_about(storage, "code", "C-1")
    assert [(each.action, each.reason) for each in entries] == [
        ("code.unredeem", "it fell through"),
        ("code.redeem", ""),
    ]
    assert isinstance(await storage.claims.cancel(claim.id, ENTRY), Cancelled)
    assert await storage.codes.redeem("C-1", ENTRY) == CodeNotClaimed()


async def test_a_redemption_by_an_older_version_counts_as_one(storage: Repositories, database_url: str) -> None:
    await offer(storage, "C-1", "C-2", uses=2)
    claims = [await claimed(storage, user_id) for user_id in ("ada", "bob")]
    # What the previous version's statement writes.
    administrate(
        database_url,
        "UPDATE codes SET redeemed_at = clock_timestamp(), redemption_id = gen_random_uuid() WHERE redeemed_at IS NULL",
    )
    found = await storage.codes.code("C-1")
    assert found is not None
    assert (found.state, found.redeemed_count) == (CodeState.CLAIMED, 1)
    done = await storage.codes.redeem("C-1", ENTRY)
    assert isinstance(done, Redeemed)
    assert done.code.redeemed_count == 2
    assert await storage.codes.redeem_claim(claims[0].id, OF_CLAIM) == AlreadyRedeemed()
    back = await storage.codes.unredeem_claim(claims[1].id, BACK)
    assert isinstance(back, ClaimUnredeemed)
    assert back.redeemed_count == 0
    found = await storage.codes.code("C-2")
    assert found is not None
    assert (found.state, found.redeemed_at) == (CodeState.CLAIMED, None)


async def test_under_its_key_a_redemption_happens_once(storage: Repositories, database_url: str) -> None:
    await offer(storage, "C-1", uses=3)
    claim = await claimed(storage)
    key = IdempotencyKey("anybody", "k", b"asked", "first")
    first = await storage.codes.redeem_claim(claim.id, OF_CLAIM, key)
    assert isinstance(first, ClaimRedeemed)
    assert await storage.codes.redeem_claim(claim.id, OF_CLAIM, key) == Replayed(first, "first")
    other = IdempotencyKey("anybody", "l", b"asked", "first")
    back = await storage.codes.unredeem("C-1", BACK, other)
    assert isinstance(back, CodeUnredeemed)
    assert await storage.codes.unredeem("C-1", BACK, other) == Replayed(back, "first")
    assert recorded(database_url) == []


async def test_a_redemption_is_stored_for_whoever_has_used_up_the_answers_that_are_stored_for_nothing(
    storage: Repositories, database_url: str
) -> None:
    await offer(storage, "C-1", uses=3)
    claim = await claimed(storage)
    key = IdempotencyKey("anybody", "k", b"asked", "first", keeps_all=False)
    first = await storage.codes.redeem_claim(claim.id, OF_CLAIM, key)
    assert await storage.codes.redeem_claim(claim.id, OF_CLAIM, key) == Replayed(first, "first")
    assert len(recorded(database_url)) == 1


async def test_a_gap_in_the_numbers_of_redemptions_stops_none(storage: Repositories, database_url: str) -> None:
    """One that was taken back, and whose commit was in doubt, need not be the last one."""
    await offer(storage, "C-1", uses=3)
    claim = await claimed(storage)
    for _ in range(3):
        assert isinstance(await storage.codes.redeem_claim(claim.id, OF_CLAIM), ClaimRedeemed)
    administrate(database_url, "DELETE FROM redemptions WHERE number = 2")
    assert isinstance(await storage.codes.redeem_claim(claim.id, OF_CLAIM), ClaimRedeemed)
    assert isinstance(await storage.codes.redeem_claim(claim.id, OF_CLAIM), AlreadyRedeemed)


@pytest.mark.parametrize("by", ["code", "claim"])
@pytest.mark.parametrize("taken_back", [False, True])
async def test_what_was_committed_before_the_connection_was_cut_is_done_once(
    database_url: str, by: str, taken_back: bool
) -> None:
    async with open_storage_through_a_proxy(database_url) as (storage, _, proxy):
        await offer(storage, "C-1", uses=3)
        claim = await claimed(storage)
        if taken_back:
            for _ in range(2):
                await storage.codes.redeem("C-1", ENTRY)
        proxy.cut_after(b"COMMIT")
        if by == "code":
            if taken_back:
                assert isinstance(await storage.codes.unredeem("C-1", BACK), CodeUnredeemed)
            else:
                assert isinstance(await storage.codes.redeem("C-1", ENTRY), Redeemed)
        elif taken_back:
            assert isinstance(await storage.codes.unredeem_claim(claim.id, BACK), ClaimUnredeemed)
        else:
            assert isinstance(await storage.codes.redeem_claim(claim.id, OF_CLAIM), ClaimRedeemed)
        assert proxy.cuts == 1
    assert recorded(database_url) == [(1, True)]


async def test_a_code_is_found_exactly_or_else_without_regard_to_case_if_one_fits(storage: Repositories) -> None:
    await offer(storage, "ab-1", "AB-1", "Xy-가", "only")
    for asked, found in {
        "ab-1": "ab-1",
        "AB-1": "AB-1",
        "aB-1": None,
        "XY-가": "Xy-가",
        "xy-가": "Xy-가",
        "ONLY": "only",
        "onl": None,
        "only_": None,
        "O%": None,
    }.items():
        code = await storage.codes.code(asked)
        assert (None if code is None else code.code) == found, asked
    claims = [await claimed(storage, user_id) for user_id in ("ada", "bob", "eve", "kim")]
    assert [claim.code for claim in claims] == ["ab-1", "AB-1", "Xy-가", "only"]
    assert await storage.codes.redeem("aB-1", ENTRY) == UnknownCode()
    assert await storage.codes.check("xY-가", "ada") == CodeCheck(
        (await storage.codes.code("Xy-가")),  # type: ignore[arg-type]
        NotYourClaim(),
    )
    done = await storage.codes.redeem("xY-가", ENTRY, user_id="eve")
    assert isinstance(done, Redeemed)
    assert done.code.code == "Xy-가"


async def test_purging_a_coupon_removes_its_redemptions(storage: Repositories, database_url: str) -> None:
    await offer(storage, "C-1")
    await claimed(storage)
    assert isinstance(await storage.codes.redeem("C-1", ENTRY), Redeemed)
    administrate(database_url, "UPDATE campaigns SET archived_at = now() - interval '10 days'")
    purged = await storage.maintenance.purge_coupon("spring", for_days=1, limit=1000, actor="test")
    assert isinstance(purged, PurgeReport)
    assert (purged.coupons, recorded(database_url)) == (1, [])


@dataclass
class Model:
    """How often a claim was redeemed, and whether it was cancelled."""

    uses: int
    times: int = 0
    is_cancelled: bool = False
    told: list[str] = field(default_factory=list)

    def does(self, step: str) -> None:
        if step.startswith("redeem"):
            done = self.times < self.uses and not self.is_cancelled
            self.times += done
        elif step.startswith("unredeem"):
            done = self.times > 0
            self.times -= done
        else:
            done = self.times == 0
            self.is_cancelled |= done
        self.told.append(f"{step}: {done}")


_STEPS = st.lists(
    st.sampled_from(["redeem", "redeem by id", "unredeem", "unredeem by id", "cancel"]), min_size=1, max_size=12
)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=_STEPS, uses=st.integers(1, 3), has_code=st.booleans())
def test_any_sequence_of_redeeming_taking_back_and_cancelling_is_that_of_the_model(
    database_url: str, steps: list[str], uses: int, has_code: bool
) -> None:
    async def run() -> list[str]:
        administrate(database_url, "TRUNCATE coupons, redemptions, code_names CASCADE")
        async with open_storage(database_url) as (storage, _):
            await offer(storage, *(["C-1"] if has_code else []), coupon_uses=uses)
            claim = await claimed(storage)
            actions: dict[str, Callable[[], Awaitable[object]]] = {
                "redeem by id": lambda: storage.codes.redeem_claim(claim.id, OF_CLAIM),
                "unredeem by id": lambda: storage.codes.unredeem_claim(claim.id, BACK),
                "redeem": lambda: storage.codes.redeem("C-1", ENTRY),
                "unredeem": lambda: storage.codes.unredeem("C-1", BACK),
                "cancel": lambda: storage.claims.cancel(claim.id, ENTRY),
            }
            if not has_code:
                actions |= {"redeem": actions["redeem by id"], "unredeem": actions["unredeem by id"]}
            successes = Redeemed | ClaimRedeemed | CodeUnredeemed | ClaimUnredeemed | Cancelled
            return [f"{step}: {isinstance(await actions[step](), successes)}" for step in steps]

    model = Model(uses)
    for step in steps:
        model.does(step)
    assert asyncio.run(run()) == model.told
    assert recorded(database_url) == [(number, True) for number in range(1, model.times + 1)]


@pytest.mark.parametrize("count", [0, 20_000])
def test_redeeming_and_finding_a_code_are_look_ups_whatever_the_tables_held_when_they_were_planned(
    database_url: str, count: int
) -> None:
    options = "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off"
    plans = []
    with psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True, options=options) as connection:
        connection.execute("INSERT INTO coupons (name, amount, remaining_amount) VALUES ('spring', 100000, 80000)")
        connection.execute(
            "INSERT INTO codes (coupon_name, code, claim_id) "
            "SELECT 'spring', 'C-' || i, gen_random_uuid() FROM generate_series(1, %s) AS i",
            [count],
        )
        connection.execute("INSERT INTO code_names SELECT code, coupon_name FROM codes")
        connection.execute("ANALYZE" if count else "SELECT 1")
        for place, (statement, names, types) in enumerate(
            (
                (_FIND, ("code",), "text"),
                (BY_CODE.lock_code, ("coupon_name", "code"), "text, text"),
                (BY_CLAIM.lock_code, ("coupon_name", "claim_id"), "text, uuid"),
                (BY_CODE.adopt, ("coupon_name", "code"), "text, text"),
                (BY_CLAIM.adopt, ("coupon_name", "claim_id"), "text, uuid"),
                (BY_CODE.read, ("coupon_name", "code", "redemption_id"), "text, text, uuid"),
                (BY_CLAIM.read, ("coupon_name", "claim_id", "redemption_id"), "text, uuid, uuid"),
            )
        ):
            connection.execute(f"PREPARE s{place} ({types}) AS {_numbered(statement, *names)}".encode())
            nulls = ", ".join("NULL" for _ in names)
            rows_of = connection.execute(f"EXPLAIN EXECUTE s{place} ({nulls})".encode())
            plans.append("\n".join(str(row[0]) for row in rows_of))
    assert "code_names_lower_idx" in plans[0]
    assert "code_names_pkey" in plans[0]
    for plan in plans:
        assert "Seq Scan" not in plan
        # The coupon alone would read all of its codes.
        assert "Index Cond: (coupon_name = $1)\n" not in plan
        assert "codes_free_idx" not in plan
