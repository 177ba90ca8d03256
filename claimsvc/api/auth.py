"""Who may create coupons and open locks: holders of an admin key, of which the service knows only the digest."""

import hashlib
import hmac

from aiohttp import hdrs, web

from claimsvc.api.problems import UNAUTHORIZED, RefusedError
from claimsvc.api.services import SERVICES

# Enough of a digest to tell which of some dozens of keys it was, and of no use for finding the key.
_SHOWN_DIGITS = 12


def require_admin(request: web.Request) -> str:
    """Let the request pass if it carries an admin key. The result names the key, for the audit.

    Raises:
        RefusedError: it carries none, an unknown one, or the service knows none.
    """
    digests = request.app[SERVICES].admin_key_digests
    if not digests:
        raise RefusedError(
            UNAUTHORIZED, "No admin key is set up, so nobody may do this; whoever runs it sets CLAIMSVC_ADMIN_KEYS."
        )
    scheme, _, key = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    if scheme.lower() != "bearer" or not key:
        raise RefusedError(UNAUTHORIZED)
    digest = hashlib.sha256(key.strip().encode("utf-8", "surrogateescape")).hexdigest()
    # Every digest is compared, each in constant time: how long it takes tells nothing of which one was close.
    if not sum([hmac.compare_digest(digest, known) for known in digests]):
        raise RefusedError(UNAUTHORIZED, "The admin key is not known here.")
    return f"admin-key:{digest[:_SHOWN_DIGITS]}"
