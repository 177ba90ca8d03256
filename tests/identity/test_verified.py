"""Verified tokens are remembered for no longer than they would be accepted; decoding faster accepts nothing more."""

import base64
import string
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import jwt
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from claimsvc.domain import TokenRefused, TokenUser
from claimsvc.identity import signatures, tokens
from claimsvc.identity.signatures import LEEWAY_SECONDS, Verified, _Jws
from claimsvc.identity.tokens import JsonWebTokens, open_tokens
from claimsvc.identity.usual_tokens import UsualToken
from claimsvc.identity.verified import VerifiedTokens
from tests.support.token_issuer import AUDIENCE, ISSUER, Issuer


@pytest.fixture
def issuer() -> Issuer:
    return Issuer("old")


@pytest.fixture
async def opened(issuer: Issuer, tmp_path: Path) -> AsyncIterator[JsonWebTokens]:
    async with open_tokens(write(tmp_path, issuer), issuer=ISSUER, audience=AUDIENCE) as found:
        yield found


def write(folder: Path, *issuers: Issuer, **more: object) -> str:
    path = folder / "keys.json"
    path.write_bytes(orjson.dumps({"keys": [each.public() for each in issuers], **more}))
    return str(path)


@contextmanager
def verifications() -> Iterator[list[str]]:
    """Collects the tokens that are verified."""
    seen: list[str] = []
    verify = signatures.verify

    def noted(token: str, *arguments: object, **options: object) -> Verified | TokenRefused:
        seen.append(token)
        return verify(token, *arguments, **options)  # type: ignore[arg-type]

    is_signed = UsualToken.is_signed

    def also_noted(usual: UsualToken) -> bool:
        seen.append(f"{usual._signed.decode()}.{base64.urlsafe_b64encode(usual._signature).rstrip(b'=').decode()}")
        return is_signed(usual)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens, "verify", noted)
        patch.setattr(UsualToken, "is_signed", also_noted)
        yield seen


@contextmanager
def clock_at(seconds: float) -> Iterator[None]:
    """The clock of what remembers, and of PyJWT."""

    class Then(jwt.api_jwt.datetime):  # type: ignore[name-defined,misc]
        @classmethod
        def now(cls, tz: object = None) -> object:
            return cls.fromtimestamp(seconds, tz)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: seconds)
        patch.setattr(jwt.api_jwt, "datetime", Then)
        yield


async def test_a_token_is_verified_once_and_another_is_not_taken_for_it(opened: JsonWebTokens, issuer: Issuer) -> None:
    token = issuer.token("ann", tier="gold", groups=["a", {}])
    with verifications() as seen:
        found = [opened.user_at_hand(token) for _ in range(3)]
        assert seen == [token]
        assert await opened.user_of(token) == found[0] == found[2]
        assert isinstance(found[0], TokenUser)
        assert found[0].attributes["groups"] == ("a",)
        for end in range(1, 5):
            changed = token[:-end] + ("A" if token[-end] != "A" else "B") + token[len(token) - end + 1 :]
            assert isinstance(opened.user_at_hand(changed), TokenRefused)
        for padded in (token + "=", f" {token}", token + "."):
            opened.user_at_hand(padded)
            assert len(opened._remembered) == 1


async def test_a_refusal_is_not_remembered(opened: JsonWebTokens, issuer: Issuer) -> None:
    early = issuer.token(nbf=int(time.time()) + 3600, exp=int(time.time()) + 7200)
    assert isinstance(opened.user_at_hand(early), TokenRefused)
    with clock_at(time.time() + 3600):
        assert isinstance(opened.user_at_hand(early), TokenUser)


@pytest.mark.parametrize("change", ["gone", "replaced", "another added", "nothing but the form"])
async def test_a_set_that_changes_takes_what_was_verified_with_it(
    opened: JsonWebTokens, issuer: Issuer, tmp_path: Path, change: str
) -> None:
    token = issuer.token()
    assert isinstance(opened.user_at_hand(token), TokenUser)
    others = {"gone": [Issuer("new")], "replaced": [Issuer("old")], "another added": [issuer, Issuer("new")]}
    write(tmp_path, *others.get(change, [issuer]), **({} if change in others else {"x": 1}))
    await opened.refresh()
    with verifications() as seen:
        found = await opened.user_of(token)
    assert isinstance(found, TokenUser if change in {"another added", "nothing but the form"} else TokenRefused)
    assert seen == ([] if change == "gone" else [token])


async def test_a_set_that_stays_or_cannot_be_read_takes_nothing(
    opened: JsonWebTokens, issuer: Issuer, tmp_path: Path
) -> None:
    token = issuer.token()
    assert isinstance(opened.user_at_hand(token), TokenUser)
    with verifications() as seen:
        await opened.refresh()
        for broken in (b"", b"{}", b'{"keys": []}'):
            (tmp_path / "keys.json").write_bytes(broken)
            await opened.refresh()
        assert isinstance(opened.user_at_hand(token), TokenUser)
    assert seen == []


async def test_a_token_expires_while_it_is_remembered(opened: JsonWebTokens, issuer: Issuer) -> None:
    """In the same moment as one that is seen for the first time, and for ever."""
    now = int(time.time())
    remembered, new = (issuer.token(exp=now + 100, jti=jti) for jti in ("a", "b"))
    assert isinstance(opened.user_at_hand(remembered), TokenUser)
    with clock_at(now + 100 + LEEWAY_SECONDS - 0.001):
        assert isinstance(opened.user_at_hand(remembered), TokenUser)
    with clock_at(now + 100 + LEEWAY_SECONDS):
        found = [opened.user_at_hand(token) for token in (remembered, new)]
        assert found == [TokenRefused("The token has expired.")] * 2
    assert len(opened._remembered) == 0


async def test_a_clock_that_is_set_back_makes_a_token_be_verified_again(opened: JsonWebTokens, issuer: Issuer) -> None:
    now = int(time.time())
    token = issuer.token(nbf=now, exp=now + 600)
    assert isinstance(opened.user_at_hand(token), TokenUser)
    with clock_at(now - 3600):
        assert isinstance(opened.user_at_hand(token), TokenRefused)
    assert isinstance(opened.user_at_hand(token), TokenUser)


async def test_what_is_remembered_is_bounded(opened: JsonWebTokens, issuer: Issuer) -> None:
    opened._remembered = VerifiedTokens(most=3)
    made = [issuer.token(f"user-{number}") for number in range(5)]
    for token in made:
        opened.user_at_hand(made[0])  # the one used last stays
        assert isinstance(opened.user_at_hand(token), TokenUser)
    assert len(opened._remembered) == 3
    with verifications() as seen:
        for token in (made[0], made[3], made[4]):
            opened.user_at_hand(token)
        assert seen == []
        opened.user_at_hand(made[1])
        assert seen == [made[1]]


async def test_a_long_token_is_good_and_not_remembered(opened: JsonWebTokens, issuer: Issuer) -> None:
    token = issuer.token(x="a" * 2000)
    assert isinstance(opened.user_at_hand(token), TokenUser)
    assert len(opened._remembered) == 0


@given(
    st.one_of(
        st.binary(max_size=60),
        st.binary(max_size=60).map(lambda raw: base64.urlsafe_b64encode(raw)),
        st.binary(max_size=60).map(lambda raw: base64.urlsafe_b64encode(raw).rstrip(b"=")),
        st.text(string.ascii_letters + "+/-_= \n", max_size=8).map(str.encode),
    )
)
@example(b"")
@example(b"YQ")
@example(b"YR")
@example(b"YQ==")
@example(b"YQ=")
@example(b"+/")
def test_base64_is_decoded_as_pyjwt_does(segment: bytes) -> None:
    found: list[object] = []
    expected: list[object] = []
    for decode, told in ((_Jws._decode_base64url_segment, found), (jwt.PyJWS._decode_base64url_segment, expected)):
        try:
            told.append(decode(segment, "payload"))
        except jwt.DecodeError as error:
            told.append(str(error))
    assert found == expected


@given(st.lists(st.sampled_from(["e30", "eyJhbGciOiJFUzI1NiJ9", "", "YR", "===", "é", "."]), max_size=5).map(".".join))
def test_a_token_is_parsed_as_pyjwt_does(token: str) -> None:
    ours, theirs = _Jws(), jwt.PyJWS()
    for _ in range(2):
        found: list[object] = []
        expected: list[object] = []
        for reader, told in ((ours, found), (theirs, expected)):
            with suppress(jwt.PyJWTError):
                told.append(reader.get_unverified_header(token))
                told.append(reader.decode_complete(token, options={"verify_signature": False}))
        assert found == expected
