"""Tokens that arrive together are checked together, each with its own answer, by whichever thread."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from claimsvc.domain import TokenRefused, TokenUser
from claimsvc.identity.tokens import JsonWebTokens, open_tokens
from claimsvc.identity.usual_tokens import UsualToken
from tests.identity.test_tokens import write
from tests.support.token_issuer import AUDIENCE, ISSUER, Issuer

_FORGED = TokenRefused("The token's signature is invalid.")


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
async def tokens(issuer: Issuer, tmp_path: Path) -> AsyncIterator[JsonWebTokens]:
    async with open_tokens(write(tmp_path / "keys", [issuer]), issuer=ISSUER, audience=AUDIENCE) as opened:
        assert isinstance(opened.user_at_hand(issuer.token()), TokenUser)  # the header is known now
        yield opened


async def _users(tokens: JsonWebTokens, sent: list[str]) -> list[str | TokenRefused]:
    found = []
    for each in [tokens.user_soon(token) for token in sent]:
        assert isinstance(each, asyncio.Future)
        user = await each
        found.append(user.user_id if isinstance(user, TokenUser) else user)
    return found


def _forged(issuer: Issuer, user_id: str) -> str:
    head, payload, _ = issuer.token(user_id).split(".")
    return f"{head}.{payload}.{issuer.token('another').split('.')[2]}"


@pytest.mark.parametrize("count", [1, 3, 4, 100])
async def test_each_token_gets_its_own_answer(tokens: JsonWebTokens, issuer: Issuer, count: int) -> None:
    names = [f"user-{number}" for number in range(count)]
    sent = [_forged(issuer, name) if number % 3 == 1 else issuer.token(name) for number, name in enumerate(names)]
    found = await _users(tokens, sent)
    assert found == [_FORGED if number % 3 == 1 else name for number, name in enumerate(names)]
    again = [tokens.user_soon(token) for token in sent]
    assert [isinstance(each, TokenUser) for each in again] == [each != _FORGED for each in found]  # remembered


async def test_both_threads_check_and_closing_ends_the_other(
    tokens: JsonWebTokens, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked_by, both = set(), threading.Barrier(2, timeout=20)
    is_signed = UsualToken.is_signed

    def noted(token: UsualToken) -> bool:
        thread = threading.current_thread()
        if thread not in checked_by:
            checked_by.add(thread)
            both.wait()
        return is_signed(token)

    monkeypatch.setattr(UsualToken, "is_signed", noted)
    names = [f"user-{number}" for number in range(8)]
    assert await _users(tokens, [issuer.token(name) for name in names]) == names
    assert len(checked_by) == 2
    tokens.close()
    assert [each.is_alive() for each in checked_by] == [each is threading.current_thread() for each in checked_by]
    monkeypatch.undo()
    assert await _users(tokens, [issuer.token(f"more-{number}") for number in range(8)])  # it starts another one


async def test_a_failure_is_told_to_whom_it_concerns(
    tokens: JsonWebTokens, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_signed = UsualToken.is_signed

    def failing(token: UsualToken) -> bool:
        if token.claims["sub"] == "ben":
            raise MemoryError
        return is_signed(token)

    monkeypatch.setattr(UsualToken, "is_signed", failing)
    pending = [tokens.user_soon(issuer.token(name)) for name in ("ann", "ben", "cleo", "dan", "eve")]
    found = await asyncio.gather(*pending, return_exceptions=True)  # type: ignore[arg-type]
    assert [type(each) for each in found] == [TokenUser, MemoryError, TokenUser, TokenUser, TokenUser]


async def test_an_answer_that_nobody_waits_for_is_left_alone(tokens: JsonWebTokens, issuer: Issuer) -> None:
    pending = [tokens.user_soon(issuer.token(f"user-{number}")) for number in range(8)]
    assert all(isinstance(each, asyncio.Future) and each.cancel() for each in pending)
    assert await _users(tokens, [issuer.token("ann")]) == ["ann"]


async def test_what_a_former_key_verifies_is_not_remembered(
    tokens: JsonWebTokens, issuer: Issuer, tmp_path: Path
) -> None:
    token = issuer.token("ann", jti="1")
    pending = tokens.user_soon(token)
    assert isinstance(pending, asyncio.Future)
    # As if the set had been read between two turns of the event loop.
    tokens._keys = []
    tokens._remembered.clear()
    assert isinstance(await pending, TokenUser)
    assert len(tokens._remembered) == 0
