"""Generating codes: as many as the answer says, as long as codes of the pattern are unused and hard to guess."""

import asyncio
import gc
import time
import tracemalloc
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claimsvc.domain import (
    MAX_ROWS,
    AuditEntry,
    Cancelled,
    Claimed,
    CodesAdded,
    NewCode,
    PatternTooSmall,
    StrategyName,
)
from claimsvc.domain import code_generation as patterns
from claimsvc.domain.code_generation import Draws, possibilities
from claimsvc.postgres import Repositories, code_batch, code_generation
from tests.support.databases import administrate
from tests.support.storage import attempts, create_coupon, open_storage

ENTRY = AuditEntry("test", "codes.generate", "coupon", "spring")


@pytest.fixture(autouse=True)
async def coupons(storage: Repositories) -> None:
    for name in ("spring", "other"):
        await create_coupon(storage, name, 5, StrategyName.REDLOCK)


async def use_up(storage: Repositories, pattern: str, left: int) -> set[str]:
    """Give another coupon all codes of a pattern but a few, and return those."""
    every = Draws(pattern, 1).draw(possibilities(pattern))

    async def rows() -> AsyncIterator[Sequence[NewCode]]:
        yield [NewCode(row, code) for row, code in enumerate(every[left:], 1)]

    added = await storage.codes.add("other", rows(), ENTRY, atomic=True)
    assert added == CodesAdded(len(every) - left)
    return set(every[:left])


def codes_of(database_url: str, coupon_name: str = "spring") -> set[object]:
    statement = f"SELECT code FROM codes WHERE coupon_name = '{coupon_name}'"
    return {code for (code,) in administrate(database_url, statement)}


async def amount(storage: Repositories) -> int:
    detail = await storage.coupons.coupon("spring", claimants=0)
    assert detail is not None
    return detail.coupon.amount


@pytest.mark.parametrize(("pattern", "left"), [("A-999", 9), ("X가99-9", 20), ("AA-99", 1)])
async def test_the_last_codes_of_a_pattern_can_be_made(
    storage: Repositories, database_url: str, pattern: str, left: int
) -> None:
    unused = await use_up(storage, pattern, left)
    assert await storage.codes.generate("spring", left, pattern, None, ENTRY) == CodesAdded(left)
    assert codes_of(database_url) == unused
    assert await amount(storage) == left


async def test_what_cannot_be_made_is_refused_and_nothing_is_added(storage: Repositories, database_url: str) -> None:
    await use_up(storage, "A-999", 3)
    assert await storage.codes.generate("spring", 4, "A-999", None, ENTRY) == PatternTooSmall()
    assert (codes_of(database_url), await amount(storage)) == (set(), 5)
    assert await storage.codes.generate("spring", 2, "A-999", None, ENTRY) == CodesAdded(2)
    assert await storage.codes.generate("spring", 2, "A-999", None, ENTRY) == PatternTooSmall()
    assert await storage.codes.generate("spring", 1, "A-999", None, ENTRY) == CodesAdded(1)


async def test_a_large_pattern_that_is_used_up_is_refused(
    storage: Repositories, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here each draw of a large pattern gives a code that is used."""
    await use_up(storage, "A-999", 0)
    monkeypatch.setattr(patterns, "_MOST_SHUFFLED", 9_000)
    assert await storage.codes.generate("spring", 1, "A-999", None, ENTRY) == PatternTooSmall()


async def test_the_answer_is_what_was_added(
    storage: Repositories, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patterns, "FEWEST_POSSIBILITIES_PER_CODE", 0)
    monkeypatch.setattr(code_generation, "_CODES_AT_ONCE", 7)
    counts = dict.fromkeys(("spring", "other"), 0)
    for number in range(30):
        name = ("spring", "other")[number % 2]
        answer = await storage.codes.generate(name, 10, "A-9", None, ENTRY)
        counts[name] += answer.added if isinstance(answer, CodesAdded) else 0
        assert len(codes_of(database_url, name)) == counts[name]
    assert sum(counts.values()) == 140
    assert await storage.codes.generate("spring", 4, "A-9", None, ENTRY) == CodesAdded(4)


async def test_codes_stay_hard_to_guess_however_often_some_are_made(storage: Repositories, database_url: str) -> None:
    made = [await storage.codes.generate("spring", 2, "A-999", None, ENTRY) for _ in range(6)]
    assert made == [CodesAdded(2)] * 4 + [PatternTooSmall()] * 2
    assert await storage.codes.generate("spring", 2, "A-99가", None, ENTRY) == CodesAdded(2)
    assert await storage.codes.generate("other", 9, "A-999", None, ENTRY) == CodesAdded(9)
    assert await storage.codes.generate("spring", 1, "A-999", None, ENTRY) == CodesAdded(1)
    assert await storage.codes.generate("spring", 1, "A-999", None, ENTRY) == PatternTooSmall()
    # A code that was voided cannot be used, and the one that replaces it can.
    [claimed] = await storage.admission.admit(attempts("ada"))
    assert isinstance(claimed, Claimed)
    assert isinstance(await storage.claims.cancel(claimed.claim.id, ENTRY), Cancelled)
    assert len(codes_of(database_url)) == 12
    assert await storage.codes.generate("spring", 1, "A-999", None, ENTRY) == PatternTooSmall()


async def test_codes_of_the_pattern_that_were_uploaded_count(storage: Repositories) -> None:
    async def rows() -> AsyncIterator[Sequence[NewCode]]:
        yield [NewCode(row, f"A-22{row}") for row in range(2, 10)]

    await storage.codes.add("spring", rows(), ENTRY, atomic=True)
    assert await storage.codes.generate("spring", 2, "A-999", None, ENTRY) == PatternTooSmall()
    assert await storage.codes.generate("spring", 1, "A-999", None, ENTRY) == CodesAdded(1)


async def test_requests_at_once_keep_the_limit_together(storage: Repositories, database_url: str) -> None:
    async with open_storage(database_url) as (another, _):
        asked = [
            each.codes.generate("spring", 2, "A-999", None, ENTRY) for each in (storage, another) for _ in range(8)
        ]
        made = await asyncio.gather(*asked)
    assert sorted(map(repr, made)) == sorted(map(repr, [CodesAdded(2)] * 4 + [PatternTooSmall()] * 12))
    assert len(codes_of(database_url)) == 8


async def test_memory_does_not_grow_with_the_number_of_codes(storage: Repositories) -> None:
    pattern = "가" * 64
    await storage.codes.generate("spring", 10, pattern, None, ENTRY)
    tracemalloc.start()
    try:
        assert await storage.codes.generate("spring", 10_000, pattern, None, ENTRY) == CodesAdded(10_000)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


@asynccontextmanager
async def pauses() -> AsyncIterator[list[float]]:
    """How long the event loop takes for each turn, in seconds of CPU, because other programs make it wait, too."""
    found: list[float] = []

    async def watch() -> None:
        while True:
            began = time.process_time()
            await asyncio.sleep(0.001)
            found.append(time.process_time() - began)

    # A collection goes through all objects of the tests, too.
    gc.freeze()
    watching = asyncio.create_task(watch())
    yield found
    watching.cancel()
    gc.unfreeze()


@pytest.mark.slow
async def test_others_go_on_while_many_codes_are_made(storage: Repositories) -> None:
    async with pauses() as found:
        assert await storage.codes.generate("spring", 100_000, "가" * 64, None, ENTRY) == CodesAdded(100_000)
    # It was 0.6 s on an idle machine.
    assert max(found) < 0.3


@pytest.mark.slow
async def test_others_go_on_while_many_codes_are_uploaded_at_once(storage: Repositories) -> None:
    codes = [f"가나다라마바사-{number * 7919 % MAX_ROWS:06}" for number in range(MAX_ROWS)]

    async def rows() -> AsyncIterator[Sequence[NewCode]]:
        for start in range(0, MAX_ROWS, 500):
            yield [NewCode(start + row, code) for row, code in enumerate(codes[start : start + 500], 1)]
            await asyncio.sleep(0)

    async with pauses() as found:
        assert await storage.codes.add("spring", rows(), ENTRY, atomic=True) == CodesAdded(MAX_ROWS)
    # Sorting all of them at once took 0.15 s on an idle machine.
    assert max(found) < 0.08, sorted(found)[-5:]


@given(st.lists(st.text(max_size=3), max_size=30))
def test_codes_are_reserved_in_their_order_to_prevent_deadlocks(codes: list[str]) -> None:
    rows = [NewCode(row, code) for row, code in enumerate(codes, 1)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(code_batch, "ROWS_AT_ONCE", 4)
        in_order = asyncio.run(code_batch._in_order(rows))
    assert list(in_order) == sorted(rows, key=lambda row: row.code)
