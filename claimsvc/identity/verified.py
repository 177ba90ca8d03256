"""The tokens that were verified, so that a user's next requests need not be: verifying one costs as much as a claim."""

from collections import OrderedDict

from claimsvc.domain import TokenUser
from claimsvc.identity.signatures import LEEWAY_SECONDS, Verified

# A few kilobytes each, of at most 2048 characters.
_MOST = 10_000


class VerifiedTokens:
    """Verified tokens by their digests: those that were used last, each until it expires.

    Whoever changes the keys must call `clear`.

    Args:
        most: how many are remembered.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        # With the time at which each was verified, in seconds since 1970.
        self._verified: OrderedDict[bytes, tuple[Verified, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._verified)

    def user_of(self, digest: bytes, now: float) -> TokenUser | None:
        """The user of a token; None if it must be verified.

        Args:
            digest: of the whole token.
            now: seconds since 1970.
        """
        found = self._verified.get(digest)
        if found is None:
            return None
        verified, verified_at = found
        # A clock that was set back may be before the token's `nbf` and `iat`, which verifying it will show.
        if not verified_at <= now < verified.expires_at + LEEWAY_SECONDS:
            del self._verified[digest]
            return None
        self._verified.move_to_end(digest)
        return verified.user

    def add(self, digest: bytes, verified: Verified, now: float) -> None:
        """Remember a token that was verified at `now` (seconds since 1970); forgets the one not used for longest."""
        self._verified[digest] = verified, now
        if len(self._verified) > self._most:
            self._verified.popitem(last=False)

    def clear(self) -> None:
        """Forget all of them."""
        self._verified.clear()
