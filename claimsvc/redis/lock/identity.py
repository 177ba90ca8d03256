"""Instance names and lock tokens. A token begins with the name of its instance, which identifies the holder."""

import os
import re
import socket
import uuid

_LONGEST_HOST = 63  # the limit of a DNS label


def instance_name() -> str:
    """Return a unique name for this instance: host, process id and a random part, so that operators can locate it."""
    host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:_LONGEST_HOST]
    return f"{host}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


def token_of(instance: str, unique: str) -> str:
    """Return the token of one acquisition.

    Args:
        instance: the name of the instance.
        unique: must be unique to the acquisition.
    """
    return f"{instance}/{unique}"


def instance_of(token: str) -> str:
    """Return the name of the instance that made a token; empty if the token has none."""
    return token.rpartition("/")[0]
