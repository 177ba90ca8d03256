"""Users' tokens: which are believed, and where the keys come from that they are signed with."""

import asyncio
import base64
import hmac
import json
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from claimsvc.domain import TokenRefused, TokenUser
from claimsvc.errors import SettingsError
from claimsvc.identity.tokens import JsonWebTokens, open_tokens
from tests.support.token_issuer import AUDIENCE, ISSUER, Issuer


def write(path: Path, issuers: Sequence[Issuer], *more: dict[str, Any]) -> str:
    path.write_text(json.dumps({"keys": [*(each.public() for each in issuers), *more]}), encoding="utf-8")
    return str(path)


def in_base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def by_secret(claims: dict[str, Any], secret: bytes, kid: str) -> str:
    """Signed by HMAC, also with what PyJWT takes for no secret."""
    header = {"alg": "HS256", "typ": "JWT", "kid": kid}
    signed = ".".join(in_base64(json.dumps(part).encode()) for part in (header, claims))
    return f"{signed}.{in_base64(hmac.digest(secret, signed.encode(), 'sha256'))}"


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
async def tokens(issuer: Issuer, tmp_path: Path) -> AsyncIterator[JsonWebTokens]:
    async with open_tokens(write(tmp_path / "keys", [issuer]), issuer=ISSUER, audience=AUDIENCE) as opened:
        yield opened


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
async def test_a_good_token_names_its_user_and_what_it_says(tmp_path: Path, algorithm: str) -> None:
    issuer = Issuer("a", algorithm)
    source = write(tmp_path / "keys", [Issuer("b", algorithm), issuer])
    async with open_tokens(source, issuer=ISSUER, audience=AUDIENCE) as tokens:
        found = await tokens.user_of(issuer.token("ann", aud=["other", AUDIENCE], country="KR"))
        assert isinstance(found, TokenUser)
        assert (found.user_id, found.claims["country"]) == ("ann", "KR")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"exp": 1}, "expired"),
        ({"exp": None}, "lacks a required claim"),
        ({"aud": "others"}, "different audience or issuer"),
        ({"aud": None}, "lacks a required claim"),
        ({"iss": "https://else.example"}, "different audience or issuer"),
        ({"iss": None}, "lacks a required claim"),
        ({"sub": None}, "lacks a required claim"),
        ({"nbf": 2**33}, "not valid yet"),
        ({"user_id": "two words"}, "subject"),
        ({"user_id": ""}, "subject"),
        ({"user_id": "a" * 256}, "subject"),
        ({"headers": {"kid": "another"}}, "unknown key"),
    ],
)
async def test_a_token_that_is_not_wholly_good_is_refused(
    tokens: JsonWebTokens, issuer: Issuer, changes: dict[str, Any], words: str
) -> None:
    found = await tokens.user_of(issuer.token(**changes))
    assert isinstance(found, TokenRefused)
    assert words in found.reason
    assert isinstance(await tokens.user_of(issuer.token()), TokenUser)


async def test_an_expiry_within_the_leeway_of_two_clocks_is_let_through(tokens: JsonWebTokens, issuer: Issuer) -> None:
    assert isinstance(await tokens.user_of(issuer.token(exp=int(time.time()) - 10)), TokenUser)


@pytest.mark.parametrize("token", ["a.b.c", "..", "e30.e30.", "a.b", "\x00.\x00.\x00", "\udcff.a.b"])
async def test_what_is_no_token_is_refused(tokens: JsonWebTokens, token: str) -> None:
    assert isinstance(await tokens.user_of(token), TokenRefused)


async def test_the_algorithm_is_ours_to_choose_not_the_token_s(tmp_path: Path) -> None:
    """`none`, and an HMAC whose secret is the public key that everybody knows: the two classic forgeries."""
    issuer = Issuer("one", "RS256")
    claims = jwt.decode(issuer.token(), options={"verify_signature": False})
    published = issuer.private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    secret = b"a secret that both sides would know"
    symmetric = {"kty": "oct", "kid": "two", "k": in_base64(secret)}
    async with open_tokens(write(tmp_path / "keys", [issuer], symmetric), issuer=ISSUER, audience=AUDIENCE) as tokens:
        forged = [
            jwt.encode(claims, "", "none", headers={"kid": "one"}),
            by_secret(claims, published, "one"),
            by_secret(claims, secret, "two"),
            jwt.encode(claims, issuer.private, "RS512", headers={"kid": "one"}),
        ]
        for token in forged:
            assert isinstance(await tokens.user_of(token), TokenRefused)
        head, _, signature = issuer.token("ann").split(".")
        payload = issuer.token("eve").split(".")[1]
        assert await tokens.user_of(f"{head}.{payload}.{signature}") == TokenRefused(
            "The token's signature is invalid."
        )


def curve(kid: str, kind: Any = ec.SECP384R1) -> dict[str, Any]:
    """A key of another curve than that of ES256, as some issuers publish it: without `alg`."""
    document: dict[str, Any] = jwt.algorithms.ECAlgorithm.to_jwk(
        ec.generate_private_key(kind()).public_key(), as_dict=True
    )
    return {**document, "kid": kid, "use": "sig"}


@pytest.mark.parametrize("kid", ["other", None])
async def test_a_key_that_cannot_be_used_is_no_candidate(tmp_path: Path, issuer: Issuer, kid: str | None) -> None:
    """Tokens that name it are refused, and the good key beside it still works, also for tokens that name none."""
    source = write(tmp_path / "keys", [issuer], curve("other"))
    async with open_tokens(source, issuer=ISSUER, audience=AUDIENCE) as tokens:
        forged = Issuer("other").token()
        assert await tokens.user_of(forged) == TokenRefused("The token is signed with an unknown key.")
        mine = issuer.token() if kid else jwt.encode(_claims(issuer), issuer.private, "ES256")
        assert isinstance(await tokens.user_of(mine), TokenUser)


def _claims(issuer: Issuer) -> dict[str, Any]:
    found: dict[str, Any] = jwt.decode(issuer.token(), options={"verify_signature": False})
    return found


_RSA = Issuer("rsa", "RS256").public()
_UNUSABLE: dict[str, Any] = {
    "P-384": curve("other"),
    "P-521": curve("other", ec.SECP521R1),
    "P-384 that says ES256": {**curve("other"), "alg": "ES256"},
    "X25519": {"kty": "OKP", "crv": "X25519", "x": in_base64(bytes(32)), "kid": "other"},
    "for encryption": {**Issuer("other").public(), "use": "enc"},
    "for encryption, by its operations": {**_RSA, "kid": "other", "key_ops": ["encrypt"], "alg": "RS256"},
    "not on its curve": {"kty": "EC", "crv": "P-256", "x": in_base64(bytes(32)), "y": in_base64(bytes(32)), "kid": "o"},
    "RSA of modulus 1": {"kty": "RSA", "n": "AQ", "e": "AQAB", "kid": "other"},
    "RSA without a modulus": {"kty": "RSA", "e": "AQAB", "kid": "other"},
    "a number for a coordinate": {"kty": "EC", "crv": "P-256", "x": 5, "y": 5, "kid": "other"},
    "a private key that is none": {**Issuer("other").public(), "d": None},
    "null": None,
    "a list": ["EC"],
    "a list for the type": {"kty": ["EC"], "crv": "P-256"},
}


@pytest.mark.parametrize("document", _UNUSABLE.values(), ids=_UNUSABLE.keys())
async def test_no_key_that_cannot_be_used_breaks_a_set(tmp_path: Path, issuer: Issuer, document: Any) -> None:
    source = write(tmp_path / "keys", [issuer], document)
    async with open_tokens(source, issuer=ISSUER, audience=AUDIENCE) as tokens:
        assert isinstance(await tokens.user_of(issuer.token()), TokenUser)
        assert isinstance(await tokens.user_of(issuer.token(headers={"kid": "other"})), TokenRefused)
    (tmp_path / "alone").write_text(json.dumps({"keys": [document]}), encoding="utf-8")
    with pytest.raises(SettingsError, match="contains no key"):
        async with open_tokens(str(tmp_path / "alone"), issuer=ISSUER, audience=AUDIENCE):
            pass


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
async def test_a_key_too_short_for_one_algorithm_is_kept_for_the_others(tmp_path: Path) -> None:
    """A signature of PS256 is longer than some RSA keys; such a key must not fail at a request."""
    short = Issuer("short", "RS256")
    short.private = rsa.generate_private_key(65_537, 1024)
    async with open_tokens(write(tmp_path / "keys", [short]), issuer=ISSUER, audience=AUDIENCE) as tokens:
        for algorithm in ("RS256", "PS256"):
            token = jwt.encode(_claims(short), short.private, algorithm, headers={"kid": "short"})
            assert isinstance(await tokens.user_of(token), TokenUser)


_ODD: list[Any] = ["ES256", "RS256", "one", "none", None, 5, [], ["b64"], {}, True, 1e300]
_headers = st.dictionaries(
    st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk", "x"]),
    st.sampled_from(range(len(_ODD))).map(_ODD.__getitem__),
)
_parts = st.one_of(
    _headers.map(lambda header: in_base64(json.dumps(header).encode())),
    st.binary(max_size=40).map(in_base64),
    st.sampled_from([in_base64(b"[" * 3000), in_base64(b'{"a":' * 1000), in_base64(b"1" * 5000), "", "=", "!"]),
    st.text(max_size=10),
)


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(_parts, min_size=1, max_size=4).map(".".join))
def test_no_text_is_believed_and_none_is_a_defect(tmp_path_factory: pytest.TempPathFactory, token: str) -> None:
    async def ask() -> object:
        source = write(tmp_path_factory.getbasetemp() / "any-text", [_ONE], curve("other"))
        async with open_tokens(source, issuer=ISSUER, audience=AUDIENCE) as tokens:
            return await tokens.user_of(token)

    assert isinstance(asyncio.run(ask()), TokenRefused)


_ONE = Issuer()


@pytest.mark.parametrize("claim", ["exp", "nbf", "iat", "aud", "iss", "sub"])
@pytest.mark.parametrize("value", [[], {}, "x", True, 1e300, float("inf"), -1, [5], "9" * 5000])
async def test_a_claim_of_another_type_is_refused(
    tokens: JsonWebTokens, issuer: Issuer, claim: str, value: object
) -> None:
    claims = {**_claims(issuer), claim: value}
    payload = in_base64(json.dumps(claims).encode())
    header = in_base64(json.dumps({"alg": "ES256", "kid": "one"}).encode())
    signed = f"{header}.{payload}"
    signature = jwt.algorithms.ECAlgorithm(hashes.SHA256).sign(signed.encode(), issuer.private)
    found = await tokens.user_of(f"{signed}.{in_base64(signature)}")
    assert isinstance(found, TokenRefused | TokenUser)
    if claim in {"exp", "aud", "iss"} and value not in (1e300, True):
        assert isinstance(found, TokenRefused)


class _Address:
    """Where a set of keys is fetched: what it answers, and how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.status = 200
        self.body = b""

    async def answer(self, _: web.Request) -> web.Response:
        self.asked += 1
        return web.Response(status=self.status, body=self.body, headers={"Location": "/keys"})

    def offer(self, *issuers: Issuer) -> None:
        self.status, self.body = 200, json.dumps({"keys": [each.public() for each in issuers]}).encode()


@pytest.fixture
async def address() -> AsyncIterator[tuple[_Address, str]]:
    address = _Address()
    app = web.Application()
    app.router.add_get("/keys", address.answer)
    async with TestServer(app) as server:
        yield address, str(server.make_url("/keys"))


async def test_a_new_key_is_learnt_when_it_is_first_used_and_an_outage_forgets_none(
    address: tuple[_Address, str],
) -> None:
    served, url = address
    old, new = Issuer("old"), Issuer("new")
    served.offer(old)
    async with aiohttp.ClientSession() as client:
        tokens = JsonWebTokens(url, issuer=ISSUER, audience=AUDIENCE, client=client, least_pause_seconds=0)
        await tokens.require()
        served.offer(old, new)
        assert isinstance(await tokens.user_of(new.token()), TokenUser)
        for served.status in (302, 500):
            await tokens.refresh()
            assert isinstance(await tokens.user_of(old.token()), TokenUser)
        served.offer(new)
        await tokens.refresh()
        assert isinstance(await tokens.user_of(old.token()), TokenRefused)


async def test_made_up_keys_do_not_make_the_set_be_fetched_again_and_again(address: tuple[_Address, str]) -> None:
    served, url = address
    served.offer(Issuer())
    async with open_tokens(url, issuer=ISSUER, audience=AUDIENCE) as tokens:
        for number in range(20):
            assert isinstance(await tokens.user_of(Issuer(f"made-up-{number}").token()), TokenRefused)
    assert served.asked == 2


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (200, b"no JSON", "not a JSON Web Key Set"),
        (200, b"[]", "not a JSON Web Key Set"),
        (200, b'{"keys": [{"kty": "oct", "k": "AAAA"}, {"kty": ["RSA"]}, 5]}', "no key for"),
        (200, b" " * (1024 * 1024 + 1), "larger than"),
        (404, b"", "status 404"),
        (302, b"", "status 302"),
    ],
)
async def test_a_set_of_no_use_is_named_at_the_start(
    address: tuple[_Address, str], status: int, body: bytes, words: str
) -> None:
    served, url = address
    served.status, served.body = status, body
    with pytest.raises(SettingsError, match=f"CLAIMSVC_JWT_JWKS: .*{words}"):
        async with open_tokens(url, issuer=ISSUER, audience=AUDIENCE):
            pass


async def test_a_file_that_is_not_there_is_named_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        async with open_tokens(str(tmp_path / "none"), issuer=ISSUER, audience=AUDIENCE):
            pass
