"""Keys of locks, instance names, and tokens. A token begins with the name of its instance, the holder."""

import os
import re
import socket
import uuid

KEY_PREFIX = "claim:coupon:"
_LONGEST_HOST = 63  # the limit of a DNS label


def key_of(coupon_name: str) -> str:
    """Return the key of a coupon's lock. pottery forms the same one from its own prefix and ours."""
    return KEY_PREFIX + coupon_name


def instance_name() -> str:
    """Return a unique name for this instance: host, process id and a random part, so that operators can locate it."""
    host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:_LONGEST_HOST]
    return f"{host}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


def token_of(instance: str, unique: str, *, combines: bool) -> str:
    """Return the token of one acquisition.

    Args:
        instance: the name of the instance.
        unique: must be unique to the acquisition.
        combines: whether the instance decides batches that are handed to it while it holds the lock.
    """
    return f"{instance}/{'+' if combines else ''}{unique}"


def instance_of(token: str) -> str:
    """Return the name of the instance that made a token; empty if the token has none."""
    return token.rpartition("/")[0]
