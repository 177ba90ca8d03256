"""Who holds a lock: its token begins with the name of the instance that made it, so no other key has to say so."""

import os
import re
import socket
import uuid

_LONGEST_HOST = 63  # what DNS allows a label


def instance_name() -> str:
    """A name for an instance that no other has, and that tells an operator where it runs: host, process and chance."""
    host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:_LONGEST_HOST]
    return f"{host}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


def token_of(instance: str, unique: str) -> str:
    """A token for one acquisition by an instance; `unique` is no other's."""
    return f"{instance}/{unique}"


def instance_of(token: str) -> str:
    """The instance that made a token; empty if the token does not say."""
    return token.rpartition("/")[0]
