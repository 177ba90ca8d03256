"""An issuer of users' tokens, with keys of its own that are made at run time."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

ISSUER = "https://issuer.example"
AUDIENCE = "claims"

_MAKERS: Mapping[str, tuple[Any, Callable[[], Any]]] = {
    "RS256": (jwt.algorithms.RSAAlgorithm, lambda: rsa.generate_private_key(65_537, 2048)),
    "ES256": (jwt.algorithms.ECAlgorithm, lambda: ec.generate_private_key(ec.SECP256R1())),
    "EdDSA": (jwt.algorithms.OKPAlgorithm, ed25519.Ed25519PrivateKey.generate),
}


@dataclass
class Issuer:
    """Signs with a key of its set, ES256 unless told."""

    kid: str = "one"
    algorithm: str = "ES256"
    private: Any = field(init=False)

    def __post_init__(self) -> None:
        self.private = _MAKERS[self.algorithm][1]()

    def public(self) -> dict[str, Any]:
        """The public key as it is in a set."""
        document: dict[str, Any] = _MAKERS[self.algorithm][0].to_jwk(self.private.public_key(), as_dict=True)
        return {**document, "kid": self.kid, "use": "sig"}

    def token(self, user_id: str = "ann", *, headers: dict[str, Any] | None = None, **changes: Any) -> str:
        """A token that is good, but for `changes`; one that is None is left out."""
        now = int(time.time())
        claims = {"sub": user_id, "iss": ISSUER, "aud": AUDIENCE, "exp": now + 600, **changes}
        kept = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(kept, self.private, self.algorithm, headers={"kid": self.kid, **(headers or {})})


def bearer(credential: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {credential}"}
