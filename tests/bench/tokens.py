"""Users' tokens, and the issuer that the service is told to trust."""

import secrets
import time
from collections.abc import Iterable
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

ISSUER = "https://issuer.example"
AUDIENCE = "claims"
_ALGORITHM = "ES256"
_KEY_ID = "bench"
_VALID_SECONDS = 1800


def new_key() -> tuple[str, dict[str, Any]]:
    """A new key: the private one in PEM, and the JSON Web Key Set with the public one."""
    private = ec.generate_private_key(ec.SECP256R1())
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public: dict[str, Any] = jwt.algorithms.ECAlgorithm.to_jwk(private.public_key(), as_dict=True)
    return pem.decode(), {"keys": [{**public, "kid": _KEY_ID, "use": "sig", "alg": _ALGORITHM}]}


def tokens_of(private_key: str, user_ids: Iterable[str]) -> list[str]:
    """A token for each user, which nobody has seen before: each has an id of its own.

    Args:
        private_key: in PEM.
        user_ids: the subjects.
    """
    key = serialization.load_pem_private_key(private_key.encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    now = int(time.time())
    common = {"iss": ISSUER, "aud": AUDIENCE, "iat": now, "exp": now + _VALID_SECONDS}
    return [
        jwt.encode({"sub": user, "jti": secrets.token_hex(8), **common}, key, _ALGORITHM, headers={"kid": _KEY_ID})
        for user in user_ids
    ]
