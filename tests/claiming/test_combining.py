"""Messages arrive as they were sent; a batch is handed over until somebody takes it, and its answer is waited for."""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uuid_utils import uuid7

from claimsvc.claiming.combining import ANSWER_SECONDS, Combiner, Journey, combiner
from claimsvc.claiming.combining.messages import Answered, answered, handed, handed_batch, read
from claimsvc.domain import (
    AlreadyClaimed,
    Attempt,
    Claim,
    Claimed,
    ClaimOptions,
    ClaimState,
    IdempotencyKey,
    SoldOut,
    TooManyClaims,
    UnknownCoupon,
)
from claimsvc.ports import AllClaimed, Answer, BatchDecisions, Decision, HandedBatch, HandOver, Mailbox
from tests.support.observed import Observed

_NOW = datetime(2026, 11, 30, 12, 0, 0, 123456, tzinfo=UTC)
_NAMES = st.text(st.characters(exclude_categories=["C"], exclude_characters="\n"), min_size=1, max_size=20)
_KEYS = st.builds(
    IdempotencyKey, _NAMES, _NAMES, st.binary(max_size=32), _NAMES, st.none() | st.binary(max_size=32), st.booleans()
)
_SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | _NAMES
_OPTIONS = st.none() | st.builds(
    ClaimOptions,
    st.none() | st.integers(1, 3600),
    st.none() | _KEYS,
    st.dictionaries(_NAMES, _SCALARS, max_size=3),
    st.dictionaries(_NAMES, _SCALARS | st.lists(_SCALARS, max_size=3), max_size=3),
    st.booleans(),
)


def _attempts(coupon_name: str, users: Sequence[tuple[str, ClaimOptions | None]]) -> list[Attempt]:
    return [Attempt(str(uuid7()), coupon_name, user, options) for user, options in users]


@given(_NAMES, st.lists(st.tuples(_NAMES, _OPTIONS), min_size=1, max_size=5))
def test_a_batch_arrives_as_it_was_sent(coupon_name: str, users: list[tuple[str, ClaimOptions | None]]) -> None:
    attempts = _attempts(coupon_name, users)
    batch = handed_batch(str(uuid7()), coupon_name, attempts)
    assert batch is not None
    received = read(handed(batch))
    assert isinstance(received, HandedBatch)
    assert received.attempts == attempts
    assert (received.id, received.coupon_name, received.size) == (batch.id, coupon_name, len(users))
    for given_, found in zip(attempts, received.attempts, strict=True):
        if given_.options is not None and found.options is not None:
            assert (found.options.attributes, found.options.token) == (given_.options.attributes, given_.options.token)


def _claim(user: str, **terms: object) -> Claim:
    return Claim(str(uuid7()), "spring", user, ClaimState.ACTIVE, _NOW, **terms)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "decisions",
    [
        AllClaimed(_NOW),
        None,
        [Claimed(_claim("ada")), SoldOut(), AlreadyClaimed(_claim("ben")), UnknownCoupon(), TooManyClaims()],
        [Claimed(_claim("ada", code="SPRING-1")), Claimed(_claim("ben", expires_at=_NOW))],
    ],
    ids=["all claimed", "declined", "of each kind", "with codes and holds"],
)
def test_decisions_arrive_as_they_were_sent(decisions: BatchDecisions | None) -> None:
    received = read(answered("id", decisions))
    assert received == Answered("id", decisions)


def test_a_message_of_a_later_version_is_not_read() -> None:
    assert read(b"another\nthing") is None


@given(
    st.sampled_from(
        [
            handed(HandedBatch("id", "spring", 2, f"{'a' * 36}\n{'b' * 36}", "ada\nben", [None, ClaimOptions(5)])),
            answered("id", [SoldOut(), UnknownCoupon()]),
            answered("id", AllClaimed(_NOW)),
        ]
    ),
    st.integers(0, 150),
    st.integers(0, 5),
    st.binary(max_size=5) | st.sampled_from([b"null", b"[]", b'{"kind":"later"}', b"\n", b"99"]),
)
def test_a_message_that_cannot_be_read_harms_nobody(message: bytes, at: int, cut: int, put_in: bytes) -> None:
    received = read(message[:at] + put_in + message[at + cut :])
    if isinstance(received, HandedBatch):
        assert len(received.attempts) == received.size


@pytest.mark.parametrize("user", ["a\nb", ""], ids=["line break", "empty"])
def test_what_the_database_will_refuse_is_not_handed_over_or_arrives_as_it_is(user: str) -> None:
    attempts = _attempts("spring", [(user, None), ("ben", None)])
    batch = handed_batch("id", "spring", attempts)
    assert batch is None or batch.attempts == attempts


class _Post:
    """`ports.Post` that says what it is told to say, and keeps what it was handed."""

    def __init__(self, *found: HandOver) -> None:
        self.found = list(found)
        self.handed: list[HandedBatch] = []
        self.mailbox: Mailbox

    def deliver_to(self, mailbox: Mailbox) -> None:
        self.mailbox = mailbox

    async def hand(self, coupon_name: str, message: bytes) -> HandOver:
        found = self.found.pop(0)
        if found is HandOver.SENT:
            batch = read(message)
            assert isinstance(batch, HandedBatch)
            self.handed.append(batch)
        return found

    def answer(self, decisions: BatchDecisions | None) -> None:
        self.mailbox.arrived("holder", answered(self.handed[-1].id, decisions), lambda _: None)


def _journey(post: _Post) -> tuple[Combiner, Journey]:
    combining = Combiner("origin", post, Observed())
    journey = combining.journey("spring", _attempts("spring", [("ada", None)]))
    assert journey is not None
    return combining, journey


async def _until_handed(post: _Post, times: int) -> None:
    while len(post.handed) < times:
        await asyncio.sleep(0)


async def test_a_batch_is_answered() -> None:
    post = _Post(HandOver.SENT)
    _, journey = _journey(post)
    handing = asyncio.create_task(journey.hand())
    await _until_handed(post, 1)
    post.answer(AllClaimed(_NOW))
    assert await handing is HandOver.SENT
    assert journey.decisions == AllClaimed(_NOW)


async def test_a_batch_that_was_declined_is_handed_over_again_under_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(combiner, "_ASK_AGAIN_SECONDS", 0.0)
    post = _Post(HandOver.SENT, HandOver.RESERVED, HandOver.SENT)
    _, journey = _journey(post)
    handing = asyncio.create_task(journey.hand())
    await _until_handed(post, 1)
    post.answer(None)
    await _until_handed(post, 2)
    post.answer(AllClaimed(_NOW))
    assert await handing is HandOver.SENT
    assert len({batch.id for batch in post.handed}) == 1


@pytest.mark.parametrize("found", [HandOver.FREE, HandOver.HELD])
async def test_what_was_not_sent_is_known_not_to_be_decided(found: HandOver) -> None:
    _, journey = _journey(_Post(found))
    assert await journey.hand() is found
    assert not journey.was_sent


async def test_a_master_that_does_not_answer_may_have_sent_it() -> None:
    _, journey = _journey(_Post(HandOver.UNKNOWN))
    assert await journey.hand() is HandOver.UNKNOWN
    assert journey.was_sent


async def test_what_was_sent_once_stays_in_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(combiner, "_ASK_AGAIN_SECONDS", 0.0)
    post = _Post(HandOver.SENT, HandOver.FREE)
    _, journey = _journey(post)
    handing = asyncio.create_task(journey.hand())
    await _until_handed(post, 1)
    post.answer(None)
    assert await handing is HandOver.FREE
    assert journey.was_sent


async def test_a_silent_holder_is_waited_for_so_long_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(combiner, "ANSWER_SECONDS", 0.01)
    _, journey = _journey(_Post(HandOver.SENT))
    assert await journey.hand() is HandOver.UNKNOWN
    assert (journey.decisions, journey.was_sent) == (None, True)


async def test_holders_that_decline_late_are_not_asked_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(combiner, "ANSWER_SECONDS", 0.1)
    post = _Post(*[HandOver.SENT] * 12)
    _, journey = _journey(post)
    handing = asyncio.create_task(journey.hand())
    while not handing.done():
        await asyncio.sleep(0.05)
        post.answer(None)
    assert await handing is HandOver.UNKNOWN
    assert len(post.handed) <= 2


async def test_who_is_invited_takes_the_lock_and_hands_nothing_over() -> None:
    post = _Post()
    combining, journey = _journey(post)
    combining.invited("spring")
    assert await journey.hand() is HandOver.FREE
    assert not combining.is_invited("spring")


class _Admission:
    """`ports.FencedAdmission` that gives everybody a unit."""

    async def admit_handed(
        self, attempts: Sequence[Attempt], batches: Sequence[HandedBatch]
    ) -> tuple[list[Decision], list[BatchDecisions | None]]:
        return [SoldOut() for _ in attempts], [AllClaimed(_NOW) for _ in batches]


def _handed_to(combining: Combiner, sender: str, answer: Answer, *users: str) -> HandedBatch:
    batch = handed_batch(str(uuid7()), "spring", _attempts("spring", [(user, None) for user in users]))
    assert batch is not None
    combining.arrived(sender, handed(batch), answer)
    return batch


async def test_a_holder_answers_what_lies_on_its_desk_and_declines_the_rest() -> None:
    answers: list[Answered] = []

    def note(message: bytes) -> None:
        received = read(message)
        assert isinstance(received, Answered)
        answers.append(received)

    combining = Combiner("b", _Post(), Observed())
    with combining.desk(["spring"]) as desk:
        first = _handed_to(combining, "a", note, "ada", "ben")
        combining.arrived("a", handed(first), note)  # a copy
        assert desk.claims == 2
        await desk.admit(_Admission(), ())  # type: ignore[arg-type]
        assert answers == [Answered(first.id, AllClaimed(_NOW))]
        assert desk.successor() is None, "it has nothing to decide"
        second = _handed_to(combining, "c", note, "cleo")
    assert answers[1:] == [Answered(second.id, None)]
    third = _handed_to(combining, "c", note, "dora")
    assert answers[2:] == [Answered(third.id, None)]


async def test_the_next_holder_is_the_next_by_name() -> None:
    combining = Combiner("b", _Post(), Observed())
    with combining.desk(["spring"]) as desk:
        for sender in ("a", "d", "c"):
            _handed_to(combining, sender, lambda _: None, f"user-{sender}")
        assert desk.successor() == "c"


async def test_an_instance_that_no_longer_waits_for_its_answer_is_no_next_holder() -> None:
    combining = Combiner("b", _Post(), Observed())
    with combining.desk(["spring"]) as desk:
        _handed_to(combining, "a", lambda _: None, "ada")
        with patch.object(combiner, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + ANSWER_SECONDS)):
            assert desk.successor() is None
