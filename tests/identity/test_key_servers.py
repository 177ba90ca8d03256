"""Whatever a server of keys answers, a user whose token names an unknown key is refused, and nothing fails."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from claimsvc.domain import TokenRefused
from claimsvc.errors import SettingsError
from claimsvc.identity.tokens import JsonWebTokens
from tests.support.token_issuer import AUDIENCE, ISSUER, Issuer

_OK = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
_USELESS: tuple[Any, ...] = (None, {}, "a", [None, 1, "a", [], {}], [{"kty": []}], [{"kty": "EC", "alg": {}}])
_ANSWERS = (
    b"",
    b"HTTP/1.1",
    b"\x16\x03\x01",
    b"HTTP/9.9 200 OK\r\n\r\n",
    b"HTTP/1.1 200 " + b"a" * 70_000,
    _OK + b"A: " + b"a" * 70_000 + b"\r\n\r\n",
    _OK + b"Content-Length: 100\r\n\r\n{",
    _OK + b"Content-Length: -1\r\n\r\n{}",
    _OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    _OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
    _OK + b"Content-Encoding: gzip\r\n\r\nnot gzip",
    _OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"a" * 2_000_000),
    _OK + b"Content-Encoding: br\r\n\r\n\xff\xff\xff",
    _OK + b"Content-Encoding: zstd\r\n\r\n\xff\xff\xff",
    _OK + b"Set-Cookie: a=\xff\r\nContent-Type: a/b;charset=\xff\r\n\r\n{}",
    b"HTTP/1.1 302 Found\r\nLocation: http://[::\r\nConnection: close\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    *(
        _OK + b"\r\n" + text
        for text in (b"null", b"[]", b"1", b'""', b"{}", b"[" * 100_000, b"\xff", b'{"keys":' + b"[" * 1000, b"")
    ),
    *(_OK + b"\r\n" + json.dumps({"keys": keys}).encode() for keys in _USELESS),
)


@asynccontextmanager
async def _verifier(answer: bytes) -> AsyncIterator[JsonWebTokens]:
    """Tokens whose keys come from a server that answers this and hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server, aiohttp.ClientSession() as client:
        port = server.sockets[0].getsockname()[1]
        yield JsonWebTokens(f"http://127.0.0.1:{port}/keys", issuer=ISSUER, audience=AUDIENCE, client=client)


async def _refuses(answer: bytes) -> None:
    async with _verifier(answer) as tokens:
        assert isinstance(await tokens.user_of(Issuer().token()), TokenRefused)
        with pytest.raises(SettingsError, match="CLAIMSVC_JWT_JWKS"):
            await tokens.require()


@pytest.mark.parametrize("answer", _ANSWERS)
async def test_an_answer_of_no_use_refuses_the_token(answer: bytes) -> None:
    await _refuses(answer)


_json: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["EC", "RSA", "AQAB", "ES256"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["kty", "n", "e", "x", "alg"]), inner),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(answer=st.binary(max_size=200) | st.binary(max_size=50).map(lambda data: _OK + data), keys=_json)
def test_no_answer_is_an_error_of_ours(answer: bytes, keys: object) -> None:
    with asyncio.Runner() as runner:
        runner.run(_refuses(answer))
        runner.run(_refuses(_OK + b"\r\n" + json.dumps({"keys": keys}).encode()))
