"""Usual tokens, which are verified without PyJWT: what it does around the signature takes as long as the signature.

Only a token that PyJWT would accept, if its signature is good, is a usual one. Whatever is different in any way is left
to PyJWT, which then decides alone: another header than that of an accepted token, a claim of an unusual type, a token
that has expired.
"""

import json
import re
from typing import Any, TypeGuard

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256

from claimsvc.domain import MAX_NAME_LENGTH, USER_ID_PATTERN, TokenUser
from claimsvc.identity.signatures import LEEWAY_SECONDS, PublicKey, Verified, base64url

_ES256 = ec.ECDSA(SHA256())
# Bytes of each of the two numbers that its signatures consist of.
_NUMBER_BYTES = 32
_IS_USER_ID = re.compile(USER_ID_PATTERN)
_PLAIN = frozenset({str, int, bool, type(None)})
# An issuer has a header for each of its keys.
_MOST_HEADERS = 100


class UsualToken:
    """A token of which everything but the signature is good.

    Args:
        key: the key that its header names.
        signed: what is signed.
        signature: the signature.
        claims: what it says. Not to be believed before `is_signed`.
    """

    __slots__ = ("_key", "_signature", "_signed", "claims")

    def __init__(self, key: Any, signed: bytes, signature: bytes, claims: dict[str, Any]) -> None:
        self._key = key
        self._signed = signed
        self._signature = signature
        self.claims = claims

    def is_signed(self) -> bool:
        """Whether the signature is that of the key. This may be called in any thread: most of it runs without Python's
        lock.
        """
        signature = self._signature
        numbers = signature[:_NUMBER_BYTES], signature[_NUMBER_BYTES:]
        encoded = utils.encode_dss_signature(*[int.from_bytes(each, "big") for each in numbers])
        try:
            self._key.verify(encoded, self._signed, _ES256)
        except InvalidSignature:
            return False
        return True

    def verified(self) -> Verified:
        """What the token says, after `is_signed`."""
        return Verified(TokenUser(self.claims["sub"], self.claims), self.claims["exp"])


class UsualTokens:
    """Recognizes usual tokens of one issuer. Whoever changes the keys must call `clear`.

    Args:
        issuer: the required `iss`.
        audience: `aud` must equal or contain it.
    """

    def __init__(self, issuer: str, audience: str) -> None:
        self._issuer = issuer
        self._audience = audience
        # The keys by the headers, as they are encoded, of tokens that PyJWT has accepted.
        self._keys: dict[str, Any] = {}

    def learn(self, token: str, key: PublicKey, algorithm: str) -> None:
        """Recognize tokens by the header of one that was accepted.

        Args:
            token: the token.
            key: the only key that its header fits.
            algorithm: the one it names.
        """
        if algorithm == "ES256" and len(self._keys) < _MOST_HEADERS:
            self._keys[token.partition(".")[0]] = key.key

    def clear(self) -> None:
        """Forget all headers."""
        self._keys.clear()

    def read(self, token: str, now: float) -> UsualToken | None:
        """Read a token; None if it is not a usual one.

        Args:
            token: the token.
            now: seconds since 1970.
        """
        signed, _, signature = token.rpartition(".")
        header, _, payload = signed.partition(".")
        key = self._keys.get(header)
        if key is None or not token.isascii():
            return None
        decoded_signature = base64url(signature.encode())
        decoded_payload = base64url(payload.encode())
        if decoded_payload is None or decoded_signature is None or len(decoded_signature) != 2 * _NUMBER_BYTES:
            return None
        claims = _claims(decoded_payload)
        if claims is None or not self._is_good(claims, now):
            return None
        return UsualToken(key, signed.encode(), decoded_signature, claims)

    def _is_good(self, claims: dict[str, Any], now: float) -> bool:
        expires_at, user_id, audience = claims.get("exp"), claims.get("sub"), claims.get("aud")
        return (
            # Of these types only: `True` is an int, too.
            type(expires_at) is int
            and expires_at > now - LEEWAY_SECONDS
            and _is_past(claims, "iat", now)
            and _is_past(claims, "nbf", now)
            and claims.get("iss") == self._issuer
            and (audience == self._audience or (_is_of_texts(audience) and self._audience in audience))
            and type(user_id) is str
            and len(user_id) <= MAX_NAME_LENGTH
            and _IS_USER_ID.fullmatch(user_id) is not None
            and type(claims.get("jti", "")) is str
        )


def _claims(payload: bytes) -> dict[str, Any] | None:
    """The claims as PyJWT parses them; None if it may refuse them."""
    try:
        claims = orjson.loads(payload)
        if type(claims) is not dict:
            return None
        for value in claims.values():
            if type(value) not in _PLAIN and not _is_of_texts(value):
                # orjson reads integers of more than 64 bits as floats.
                return json.loads(payload)  # type: ignore[no-any-return]
    except (ValueError, RecursionError):
        return None
    return claims


def _is_of_texts(value: Any) -> TypeGuard[list[str]]:
    return type(value) is list and set(map(type, value)) == {str}


def _is_past(claims: dict[str, Any], name: str, now: float) -> bool:
    time = claims.get(name, 0)
    return type(time) is int and time <= now + LEEWAY_SECONDS
