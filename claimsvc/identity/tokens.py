"""Users' tokens: JSON Web Tokens, signed by keys of a set (JWKS) that is read from a file or an address.

The only file that knows PyJWT. Its own client for key sets blocks, so the set is fetched here.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import orjson
import structlog

from claimsvc.domain import MAX_NAME_LENGTH, USER_ID_PATTERN, TokenRefused, TokenUser
from claimsvc.errors import SettingsError

# Pinned, by the kind of key. No secret that both sides know (HS*), and never `none`.
ALGORITHMS: Mapping[str, frozenset[str]] = {
    "RSA": frozenset({"RS256", "PS256"}),
    "EC": frozenset({"ES256"}),
    "OKP": frozenset({"EdDSA"}),
}
# Clocks of two machines may differ by as much.
LEEWAY_SECONDS = 30.0
REFRESH_SECONDS = 300.0
# A token of a key that is not known makes the set be read anew, but made-up ones not more often than this.
_LEAST_PAUSE_SECONDS = 10.0
_FETCH_SECONDS = 2.0
_MOST_BYTES = 1024 * 1024
_REQUIRED = ("exp", "aud", "iss", "sub")

_log = structlog.get_logger("claimsvc.tokens")


class _UnreadableError(Exception):
    """The set could not be read; the message says why."""


@dataclass(frozen=True, slots=True)
class _Key:
    """A public key: its name in the set, and the algorithms that it is for."""

    kid: str | None
    algorithms: frozenset[str]
    key: Any


class JsonWebTokens:
    """`ports.Tokens` of one issuer.

    Args:
        source: a file, or an address that begins with https:// (or http:// on this machine).
        issuer: `iss` of good tokens.
        audience: what `aud` of good tokens is or contains.
        least_pause_seconds: between two readings of the set for keys that are not known.
    """

    def __init__(
        self,
        source: str,
        *,
        issuer: str,
        audience: str,
        client: aiohttp.ClientSession,
        least_pause_seconds: float = _LEAST_PAUSE_SECONDS,
    ) -> None:
        self._source = source
        self._issuer = issuer
        self._audience = audience
        self._client = client
        self._least_pause_seconds = least_pause_seconds
        self._keys: Sequence[_Key] = ()
        self._reading = asyncio.Lock()
        self._read_at = float("-inf")

    async def user_of(self, token: str) -> TokenUser | TokenRefused:
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.InvalidTokenError, UnicodeError):  # bytes that are no text are part of a header, too
            return TokenRefused("The token is no JSON Web Token.")
        algorithm, kid = str(header.get("alg")), header.get("kid")
        if not any(algorithm in each for each in ALGORITHMS.values()):
            return TokenRefused("The token's algorithm is not taken here.")
        candidates = self._candidates(kid, algorithm)
        if not candidates:
            await self._read_anew()
            candidates = self._candidates(kid, algorithm)
        # Without a name there must be no choice: else each key would have to be tried for whatever anybody sends.
        if len(candidates) != 1:
            return TokenRefused("The token is signed by a key that is not known here.")
        return self._verify(token, candidates[0], algorithm)

    async def refresh(self) -> None:
        """Read the set. If that fails, the last one goes on, and it is logged."""
        async with self._reading:
            await self._refresh()

    async def require(self) -> None:
        """Read the set for the first time.

        Raises:
            SettingsError: it cannot be read, or has no key of use.
        """
        try:
            self._keys = await self._read()
        except _UnreadableError as error:
            raise SettingsError(f"CLAIMSVC_JWT_JWKS: {error}") from error

    def _candidates(self, kid: object, algorithm: str) -> list[_Key]:
        return [key for key in self._keys if algorithm in key.algorithms and kid in (None, key.kid)]

    def _verify(self, token: str, key: _Key, algorithm: str) -> TokenUser | TokenRefused:
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key.key,
                algorithms=[algorithm],
                issuer=self._issuer,
                audience=self._audience,
                leeway=LEEWAY_SECONDS,
                options={"require": list(_REQUIRED)},
            )
        except jwt.ExpiredSignatureError:
            return TokenRefused("The token has expired.")
        except jwt.InvalidSignatureError:
            return TokenRefused("The token's signature is not right.")
        except jwt.InvalidTokenError:
            return TokenRefused(
                "The token is not for this service, not from its issuer, not valid yet, or lacks a claim."
            )
        user_id = claims["sub"]
        if not isinstance(user_id, str) or len(user_id) > MAX_NAME_LENGTH or not re.fullmatch(USER_ID_PATTERN, user_id):
            return TokenRefused("The token's subject cannot be a user id here.")
        return TokenUser(user_id, claims)

    async def _read_anew(self) -> None:
        """Read the set for a key that is not in it, unless that was just done; who comes meanwhile waits for that."""
        async with self._reading:
            if asyncio.get_running_loop().time() - self._read_at >= self._least_pause_seconds:
                await self._refresh()

    async def _refresh(self) -> None:
        self._read_at = asyncio.get_running_loop().time()
        try:
            self._keys = await self._read()
        except _UnreadableError as error:
            _log.warning("keys_of_tokens_not_read", reason=str(error))

    async def _read(self) -> Sequence[_Key]:
        raw = await (self._fetch() if "://" in self._source else asyncio.to_thread(self._load))
        try:
            documents = orjson.loads(raw)["keys"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            raise _UnreadableError("it is no JSON Web Key Set") from None
        keys = [key for key in map(_key, documents) if key is not None] if isinstance(documents, list) else []
        if not keys:
            raise _UnreadableError("it has no key for RS256, PS256, ES256 or EdDSA")
        return keys

    def _load(self) -> bytes:
        try:
            return Path(self._source).read_bytes()
        except OSError as error:
            raise _UnreadableError(f"{self._source} cannot be read ({error.strerror})") from error

    async def _fetch(self) -> bytes:
        try:
            async with (
                asyncio.timeout(_FETCH_SECONDS),
                self._client.get(self._source, allow_redirects=False) as response,
            ):
                if response.status != 200:
                    raise _UnreadableError(f"the address answers with status {response.status}")
                raw = bytearray()
                async for chunk in response.content.iter_any():
                    raw += chunk
                    if len(raw) > _MOST_BYTES:
                        raise _UnreadableError(f"it is larger than {_MOST_BYTES} bytes")
                return bytes(raw)
        except (TimeoutError, aiohttp.ClientError) as error:
            raise _UnreadableError(f"the address does not answer ({type(error).__name__})") from error


def _key(document: Any) -> _Key | None:
    """A key of the set; None if it is none that we use."""
    if not isinstance(document, dict) or document.get("use", "sig") != "sig":
        return None
    algorithms = ALGORITHMS.get(str(document.get("kty")), frozenset())
    if "alg" in document:
        algorithms &= {str(document["alg"])}
    if not algorithms:
        return None
    try:
        key = jwt.PyJWK(document, min(algorithms))
    except jwt.PyJWTError:
        return None
    # A set that somebody has put a private key into gives away who can sign; what verifies is its public half.
    return _Key(document.get("kid"), algorithms, key.key.public_key() if "d" in document else key.key)


@asynccontextmanager
async def open_tokens(source: str, *, issuer: str, audience: str) -> AsyncIterator[JsonWebTokens]:
    """What knows users by their tokens; see `JsonWebTokens`.

    Raises:
        SettingsError: the set of keys cannot be read.
    """
    async with aiohttp.ClientSession() as client:
        tokens = JsonWebTokens(source, issuer=issuer, audience=audience, client=client)
        await tokens.require()
        yield tokens
