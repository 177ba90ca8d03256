"""Users' tokens: JSON Web Tokens, signed by keys of a JSON Web Key Set that is read from a file or a URL.

This is the only file that imports PyJWT. PyJWT's own client for key sets blocks, so the set is fetched here.
"""

import asyncio
import base64
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

# The accepted algorithms, by type of key. No shared secrets (HS*), and never `none`.
ALGORITHMS: Mapping[str, frozenset[str]] = {
    "RSA": frozenset({"RS256", "PS256"}),
    "EC": frozenset({"ES256"}),
    "OKP": frozenset({"EdDSA"}),
}
# Allowance for differences between the clocks of issuer and service.
LEEWAY_SECONDS = 30.0
REFRESH_SECONDS = 300.0
# A token with an unknown key triggers a refresh of the set, at most once in this time, so that forged tokens cannot
# cause more requests.
_LEAST_PAUSE_SECONDS = 10.0
_FETCH_SECONDS = 2.0
_MOST_BYTES = 1024 * 1024
_REQUIRED = ("exp", "aud", "iss", "sub")
# What PyJWT raises for a token that is not good: its own errors, and those of the parsers below it.
_NOT_GOOD = (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError)

_log = structlog.get_logger("claimsvc.tokens")


class _UnreadableError(Exception):
    """The set could not be read; the message says why."""


@dataclass(frozen=True, slots=True)
class _Key:
    """A public key: its id in the set, and the algorithms it may be used with."""

    kid: str | None
    algorithms: frozenset[str]
    key: Any


class JsonWebTokens:
    """`ports.Tokens` for one issuer.

    Args:
        source: of the key set: a file, or a URL with https (http only for this machine).
        issuer: the required `iss`.
        audience: `aud` must equal or contain it.
        client: fetches the set from a URL.
        least_pause_seconds: between two refreshes that unknown keys trigger.
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
        except _NOT_GOOD:
            return TokenRefused("The token is not a JSON Web Token.")
        algorithm, kid = str(header.get("alg")), header.get("kid")
        if not any(algorithm in each for each in ALGORITHMS.values()):
            return TokenRefused("The token's algorithm is not supported.")
        candidates = self._candidates(kid, algorithm)
        if not candidates:
            await self._refresh_for_unknown_key()
            candidates = self._candidates(kid, algorithm)
        # A token without a key id is accepted only if a single key fits: trying every key would be expensive.
        if len(candidates) != 1:
            return TokenRefused("The token is signed with an unknown key.")
        return self._verify(token, candidates[0], algorithm)

    async def refresh(self) -> None:
        """Read the key set again. A failure is logged, and the previous set stays in use."""
        async with self._reading:
            await self._refresh()

    async def require(self) -> None:
        """Read the key set for the first time.

        Raises:
            SettingsError: it cannot be read, or contains no usable key.
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
            return TokenRefused("The token's signature is invalid.")
        except _NOT_GOOD:
            return TokenRefused(
                "The token has a different audience or issuer, is not valid yet, or lacks a required claim."
            )
        user_id = claims["sub"]
        if not isinstance(user_id, str) or len(user_id) > MAX_NAME_LENGTH or not re.fullmatch(USER_ID_PATTERN, user_id):
            return TokenRefused("The token's subject is not a valid user id.")
        return TokenUser(user_id, claims)

    async def _refresh_for_unknown_key(self) -> None:
        """Refresh the set, unless that was done within `least_pause_seconds`. Concurrent callers share one refresh."""
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
            raise _UnreadableError("it is not a JSON Web Key Set") from None
        keys = [key for key in map(_key, documents) if key is not None] if isinstance(documents, list) else []
        if not keys:
            raise _UnreadableError("it contains no key for RS256, PS256, ES256 or EdDSA")
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
                    raise _UnreadableError(f"the server answers with status {response.status}")
                raw = bytearray()
                async for chunk in response.content.iter_any():
                    raw += chunk
                    if len(raw) > _MOST_BYTES:
                        raise _UnreadableError(f"it is larger than {_MOST_BYTES} bytes")
                return bytes(raw)
        except (TimeoutError, aiohttp.ClientError) as error:
            raise _UnreadableError(f"the server does not answer ({type(error).__name__})") from error


def _key(document: Any) -> _Key | None:
    """Parse a key of the set; None if no token can be verified with it here."""
    if not isinstance(document, dict) or document.get("use", "sig") != "sig":
        return None
    algorithms = ALGORITHMS.get(str(document.get("kty")), frozenset())
    if "alg" in document:
        algorithms &= {str(document["alg"])}
    operations = document.get("key_ops")
    if not algorithms or (isinstance(operations, list) and not {"verify", "sign"} & set(map(str, operations))):
        return None
    try:
        key = jwt.PyJWK(document, min(algorithms)).key
        # A set may contain a private key by mistake; only its public half is kept.
        public = key.public_key() if "d" in document else key
    except Exception:  # noqa: BLE001 - whatever is wrong with one key, the others are good
        return None
    usable = frozenset(each for each in algorithms if _can_verify(public, each))
    return _Key(document.get("kid"), usable, public) if usable else None


def _can_verify(key: Any, algorithm: str) -> bool:
    """Whether the library can verify with the key: whether it finds that a forged signature is one.

    A key may be of the right type and still fail with each token, such as one of the curve P-384 for ES256.
    """
    header = f'{{"alg":"{algorithm}"}}'.encode()
    token = ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (header, b"{}", bytes(64)))
    try:
        jwt.decode(token, key, algorithms=[algorithm])
    except jwt.InvalidSignatureError:
        return True
    except Exception:  # noqa: BLE001 - a request must not be the first to find it
        return False
    return False


@asynccontextmanager
async def open_tokens(source: str, *, issuer: str, audience: str) -> AsyncIterator[JsonWebTokens]:
    """Open `JsonWebTokens` and read the key set.

    Raises:
        SettingsError: the key set cannot be read.
    """
    async with aiohttp.ClientSession() as client:
        tokens = JsonWebTokens(source, issuer=issuer, audience=audience, client=client)
        await tokens.require()
        yield tokens
