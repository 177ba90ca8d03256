"""Users' tokens: JSON Web Tokens, signed by keys of a JSON Web Key Set that is read from a file or a URL.

PyJWT's own client for key sets blocks, so the set is fetched here.
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import orjson
import structlog

from claimsvc.domain import TokenRefused, TokenUser
from claimsvc.errors import SettingsError
from claimsvc.identity.signature_checks import SignatureChecks
from claimsvc.identity.signatures import INVALID_SIGNATURE, PublicKey, Verified, header_of, keys_of, verify
from claimsvc.identity.usual_tokens import UsualToken, UsualTokens
from claimsvc.identity.verified import VerifiedTokens

REFRESH_SECONDS = 300.0
# A token with an unknown key triggers a refresh of the set, at most once in this time, so that forged tokens cannot
# cause more requests.
_LEAST_PAUSE_SECONDS = 10.0
_FETCH_SECONDS = 2.0
_MOST_BYTES = 1024 * 1024
# Longer tokens are verified each time, so that what is remembered is bounded.
_MOST_REMEMBERED_LENGTH = 2048
_UNKNOWN_KEY = TokenRefused("The token is signed with an unknown key.")

_log = structlog.get_logger("claimsvc.tokens")


class _UnreadableError(Exception):
    """The set could not be read; the message says why."""


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
        # The set as it was read, and its keys.
        self._raw: bytes | None = None
        self._keys: Sequence[PublicKey] = ()
        self._remembered = VerifiedTokens()
        self._usual = UsualTokens(issuer, audience)
        self._checks = SignatureChecks()
        self._reading = asyncio.Lock()
        self._read_at = float("-inf")

    def user_at_hand(self, token: str) -> TokenUser | TokenRefused | None:
        digest, now = _digest(token), time.time()
        usual = self._known(token, digest, now)
        if not isinstance(usual, UsualToken):
            return usual
        return self._remember(token, digest, usual.verified(), now) if usual.is_signed() else INVALID_SIGNATURE

    def user_soon(self, token: str) -> TokenUser | TokenRefused | asyncio.Future[TokenUser | TokenRefused] | None:
        digest, now = _digest(token), time.time()
        usual = self._known(token, digest, now)
        if not isinstance(usual, UsualToken):
            return usual
        keys = self._keys

        def checked(is_signed: bool) -> TokenUser | TokenRefused:
            if not is_signed:
                return INVALID_SIGNATURE
            verified = usual.verified()
            # What the previous keys have verified is forgotten.
            return self._remember(token, digest, verified, now) if keys is self._keys else verified.user

        return self._checks.check(usual, checked)

    def close(self) -> None:
        """End the thread that verifies."""
        self._checks.close()

    def _known(self, token: str, digest: bytes, now: float) -> TokenUser | TokenRefused | UsualToken | None:
        """What is known of a token at once. Of a usual one that is not remembered, the signature is still to check."""
        user = self._remembered.user_of(digest, now)
        if user is not None:
            return user
        usual = self._usual.read(token, now)
        return usual if usual is not None else self._verified(token, digest, now)

    def _verified(self, token: str, digest: bytes, now: float) -> TokenUser | TokenRefused | None:
        header = header_of(token)
        if isinstance(header, TokenRefused):
            return header
        algorithm, kid = header
        candidates = [key for key in self._keys if algorithm in key.algorithms and kid in (None, key.kid)]
        if not candidates:
            return None
        # A token without a key id is accepted only if a single key fits: trying every key would be expensive.
        if len(candidates) > 1:
            return _UNKNOWN_KEY
        found = verify(token, candidates[0], algorithm, issuer=self._issuer, audience=self._audience)
        if isinstance(found, TokenRefused):
            return found
        self._usual.learn(token, candidates[0], algorithm)
        return self._remember(token, digest, found, now)

    def _remember(self, token: str, digest: bytes, found: Verified, now: float) -> TokenUser:
        if len(token) <= _MOST_REMEMBERED_LENGTH:
            self._remembered.add(digest, found, now)
        return found.user

    async def user_of(self, token: str) -> TokenUser | TokenRefused:
        found = self.user_at_hand(token)
        if found is None:
            await self._refresh_for_unknown_key()
            found = self.user_at_hand(token)
        return _UNKNOWN_KEY if found is None else found

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
            await self._read()
        except _UnreadableError as error:
            raise SettingsError(f"CLAIMSVC_JWT_JWKS: {error}") from error

    async def _refresh_for_unknown_key(self) -> None:
        """Refresh the set, unless that was done within `least_pause_seconds`. Concurrent callers share one refresh."""
        async with self._reading:
            if asyncio.get_running_loop().time() - self._read_at >= self._least_pause_seconds:
                await self._refresh()

    async def _refresh(self) -> None:
        self._read_at = asyncio.get_running_loop().time()
        try:
            await self._read()
        except _UnreadableError as error:
            _log.warning("keys_of_tokens_not_read", reason=str(error))

    async def _read(self) -> None:
        """Read the set. If it has changed, what was verified by the previous one is forgotten."""
        raw = await (self._fetch() if "://" in self._source else asyncio.to_thread(self._load))
        if raw == self._raw:
            return
        try:
            documents = orjson.loads(raw)["keys"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            raise _UnreadableError("it is not a JSON Web Key Set") from None
        keys = keys_of(documents)
        if not keys:
            raise _UnreadableError("it contains no key for RS256, PS256, ES256 or EdDSA")
        self._raw, self._keys = raw, keys
        self._remembered.clear()
        self._usual.clear()

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


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


@asynccontextmanager
async def open_tokens(source: str, *, issuer: str, audience: str) -> AsyncIterator[JsonWebTokens]:
    """Open `JsonWebTokens` and read the key set.

    Raises:
        SettingsError: the key set cannot be read.
    """
    async with aiohttp.ClientSession() as client:
        tokens = JsonWebTokens(source, issuer=issuer, audience=audience, client=client)
        await tokens.require()
        try:
            yield tokens
        finally:
            tokens.close()
