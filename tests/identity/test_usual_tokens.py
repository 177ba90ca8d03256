"""A usual token is accepted without PyJWT just when PyJWT accepts it, and says the same; all others are left to it."""

import asyncio
import time
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import example, given
from hypothesis import strategies as st
from jwt.utils import der_to_raw_signature

from claimsvc.domain import TokenRefused, TokenUser
from claimsvc.identity.tokens import JsonWebTokens, open_tokens
from tests.identity.test_tokens import in_base64, write
from tests.support.token_issuer import AUDIENCE, ISSUER, Issuer

_NOW = int(time.time())
# As they are written in JSON: PyJWT accepts some of them in some claims.
_VALUES = st.sampled_from(
    [
        *("null", "true", "false", "0", "1", "-0", "1.5", "1e400", "NaN", "[]", "{}", '""', '"x"', "[1]", '["x", 1]'),
        *('"\\ud800"', '"two words"', '["\\u0061"]', "18446744073709551616", f'"{"a" * 256}"', '[["x"]]', '"1"'),
        *(str(_NOW + seconds) for seconds in (-3600, -20, 20, 3600)),
        *(f"{_NOW + 3600}.5", f'"{_NOW + 3600}"', f'["{AUDIENCE}"]', f'["other", "{AUDIENCE}"]', f'["{AUDIENCE}", 1]'),
    ]
)
_NAMES = st.sampled_from(["sub", "iss", "aud", "exp", "nbf", "iat", "jti", "country", "groups"])
_ENDS = st.sampled_from(["", "", "", "", "A", "=", "==", ".", " ", "\n", "\u00e9", "\udcff"])
_HEADERS = st.sampled_from(
    [
        *[None] * 6,
        '{"alg":"ES256","kid":"other"}',
        '{"alg":"ES256"}',
        '{"alg":"none","kid":"one"}',
        '{"alg":"ES256","kid":"one","crit":["x"]}',
        '{"alg":"ES256","kid":"one","crit":["b64"],"b64":false}',
        '{"alg":"ES256","kid":1}',
    ]
)


_ISSUER = Issuer()


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JsonWebTokens]:
    source = write(tmp_path_factory.mktemp("keys") / "keys", [_ISSUER])
    with asyncio.Runner() as runner:
        context = open_tokens(source, issuer=ISSUER, audience=AUDIENCE)
        yield runner.run(context.__aenter__())
        runner.run(context.__aexit__(None, None, None))


def _signed(header: str, payload: bytes) -> str:
    text = f"{header}.{in_base64(payload)}"
    signature = _ISSUER.private.sign(text.encode(), ec.ECDSA(hashes.SHA256()))
    return f"{text}.{in_base64(der_to_raw_signature(signature, _ISSUER.private.curve))}"


def _result(opened: JsonWebTokens, token: str, *, usual: bool) -> str:
    opened._remembered.clear()
    opened._usual.clear()
    if usual:
        assert isinstance(opened.user_at_hand(_ISSUER.token()), TokenUser)  # its header is known now
    # The form shows types, which `==` does not.
    return repr(opened.user_at_hand(token))


@example([("exp", "1")], None, "", 0, b"")
@example([("exp", str(_NOW + 600)), ("exp", "1")], None, "", 0, b"")
@example([("groups", f'["{AUDIENCE}", 18446744073709551616]')], None, "", 0, b"")
@given(
    st.lists(st.tuples(_NAMES, _VALUES), max_size=3),
    _HEADERS,
    _ENDS,
    st.integers(0, 3),
    st.sampled_from([b""] * 8 + [b" ", b"x", b"\x00", b"\xff", b"\xef\xbb\xbf"]),
)
def test_pyjwt_says_the_same(
    opened: JsonWebTokens, changes: list[tuple[str, str]], header: str | None, end: str, changed: int, before: bytes
) -> None:
    claims = [("sub", '"ann"'), ("iss", f'"{ISSUER}"'), ("aud", f'"{AUDIENCE}"'), ("exp", str(_NOW + 3600)), *changes]
    payload = before + ("{" + ",".join(f'"{name}":{value}' for name, value in claims) + "}").encode()
    token = _signed(in_base64(header.encode()) if header else _ISSUER.token().split(".")[0], payload)
    if changed:  # another character somewhere, first in the signature
        place = (0, -1, -40, -100)[changed]
        token = token[:place] + ("A" if token[place] != "A" else "B") + token[len(token) + place + 1 :]
    assert _result(opened, token + end, usual=True) == _result(opened, token + end, usual=False)


def test_a_usual_token_does_not_need_pyjwt(opened: JsonWebTokens, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(opened.user_at_hand(_ISSUER.token()), TokenUser)
    monkeypatch.setattr("claimsvc.identity.tokens.verify", None)
    monkeypatch.setattr("claimsvc.identity.tokens.header_of", None)
    found = opened.user_at_hand(_ISSUER.token("eve", aud=["x", AUDIENCE], iat=_NOW, nbf=_NOW, jti="1", tier="gold"))
    assert isinstance(found, TokenUser)
    assert (found.user_id, found.attributes["tier"]) == ("eve", "gold")
    head, payload, _ = _ISSUER.token("ann").split(".")
    forged = f"{head}.{payload}.{_ISSUER.token('eve').split('.')[2]}"
    assert opened.user_at_hand(forged) == TokenRefused("The token's signature is invalid.")


def test_a_header_is_learned_from_an_accepted_token_only(opened: JsonWebTokens) -> None:
    opened._usual.clear()
    assert isinstance(opened.user_at_hand(_ISSUER.token(exp=1)), TokenRefused)
    assert isinstance(opened.user_at_hand(Issuer().token()), TokenRefused)
    assert opened._usual._keys == {}
