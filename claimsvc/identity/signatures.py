"""The keys of a JSON Web Key Set, and what they sign: the only file that imports PyJWT.

PyJWT checks everything here; `usual_tokens` has what it would accept in any case. Only how it decodes base64 is
replaced, by an equal check in C: its own looks at each byte in Python, which takes half as long as the signature.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt
from jwt.types import Options

from claimsvc.domain import MAX_NAME_LENGTH, USER_ID_PATTERN, TokenRefused, TokenUser

# The accepted algorithms, by type of key. No shared secrets (HS*), and never `none`.
ALGORITHMS: Mapping[str, frozenset[str]] = {
    "RSA": frozenset({"RS256", "PS256"}),
    "EC": frozenset({"ES256"}),
    "OKP": frozenset({"EdDSA"}),
}
# Allowance for differences between the clocks of issuer and service.
LEEWAY_SECONDS = 30.0
INVALID_SIGNATURE = TokenRefused("The token's signature is invalid.")
_OPTIONS: Options = {"require": ["exp", "aud", "iss", "sub"]}
_IS_USER_ID = re.compile(USER_ID_PATTERN)
# What PyJWT raises for a token that is not good: its own errors, and those of the parsers below it.
_NOT_GOOD = (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError)
_STANDARD = bytes.maketrans(b"-_+/", b"+/-_")


def base64url(segment: bytes) -> bytes | None:
    """Decode what is in base64url without padding; None if it is not in the canonical form."""
    try:
        standard = segment.translate(_STANDARD) + b"=" * (-len(segment) % 4)
        decoded = binascii.a2b_base64(standard, strict_mode=True)
    except binascii.Error:
        return None
    # What is encoded to the same text again is the canonical form.
    is_canonical = binascii.b2a_base64(decoded, newline=False).translate(_STANDARD).rstrip(b"=") == segment
    return decoded if is_canonical else None


class _Jws(jwt.PyJWS):
    """PyJWT's reader of signed texts, without the loops in Python."""

    def __init__(self) -> None:
        super().__init__()
        self._last: tuple[str | bytes, tuple[bytes, bytes, dict[str, Any], bytes]] | None = None

    @staticmethod
    def _decode_base64url_segment(segment: bytes, name: str) -> bytes:
        # PyJWT accepts the canonical form; it decides all others.
        decoded = base64url(segment)
        return jwt.PyJWS._decode_base64url_segment(segment, name) if decoded is None else decoded

    def _load(self, jwt: str | bytes) -> tuple[bytes, bytes, dict[str, Any], bytes]:
        """Parse a token. `header_of` and then `verify` ask for it, so what was parsed last is used once more."""
        last, self._last = self._last, None
        if last is not None and last[0] is jwt:
            return last[1]
        loaded = super()._load(jwt)
        self._last = jwt, loaded
        return loaded


_jws = _Jws()
_jwt = jwt.PyJWT()
_jwt._jws = _jws


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key: its id in the set, and the algorithms it may be used with."""

    kid: str | None
    algorithms: frozenset[str]
    key: Any


@dataclass(frozen=True, slots=True)
class Verified:
    """A token that is good until `expires_at`.

    Args:
        user: what it says.
        expires_at: its `exp`, in seconds since 1970; `LEEWAY_SECONDS` later it is refused.
    """

    user: TokenUser
    expires_at: int


def header_of(token: str) -> tuple[str, object] | TokenRefused:
    """The algorithm and the key id that a token names, or why it is refused. Nothing is verified yet."""
    try:
        header = _jws.get_unverified_header(token)
    except _NOT_GOOD:
        return TokenRefused("The token is not a JSON Web Token.")
    algorithm = str(header.get("alg"))
    if not any(algorithm in each for each in ALGORITHMS.values()):
        return TokenRefused("The token's algorithm is not supported.")
    return algorithm, header.get("kid")


def verify(token: str, key: PublicKey, algorithm: str, *, issuer: str, audience: str) -> Verified | TokenRefused:
    """Verify a token's signature, then what it says.

    Args:
        token: the token.
        key: the key it names.
        algorithm: the algorithm it names, one of the key's.
        issuer: the required `iss`.
        audience: `aud` must equal or contain it.
    """
    try:
        claims = _jwt.decode(
            token,
            key.key,
            algorithms=[algorithm],
            issuer=issuer,
            audience=audience,
            leeway=LEEWAY_SECONDS,
            options=_OPTIONS,
        )
    except jwt.ExpiredSignatureError:
        return TokenRefused("The token has expired.")
    except jwt.InvalidSignatureError:
        return INVALID_SIGNATURE
    except _NOT_GOOD:
        return TokenRefused(
            "The token has a different audience or issuer, is not valid yet, or lacks a required claim."
        )
    user_id = claims["sub"]
    if not isinstance(user_id, str) or len(user_id) > MAX_NAME_LENGTH or not _IS_USER_ID.fullmatch(user_id):
        return TokenRefused("The token's subject is not a valid user id.")
    return Verified(TokenUser(user_id, claims), int(claims["exp"]))


def keys_of(documents: object) -> list[PublicKey]:
    """The usable keys of a set; empty if there are none.

    Args:
        documents: the member `keys` of the set.
    """
    return [key for key in map(key_of, documents) if key is not None] if isinstance(documents, list) else []


def key_of(document: Any) -> PublicKey | None:
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
    return PublicKey(document.get("kid"), usable, public) if usable else None


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
