"""Why a Redis master cannot be used, and what to do: a wrong password is not a server that is down."""

import socket

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    RedisError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from claimsvc.errors import Trouble

_URLS = "CLAIMSVC_REDIS_URLS"
_MOST_TOLD = 100


def trouble_of(error: RedisError | TimeoutError) -> Trouble:
    """Why a master did not do what it was asked. Never contains a password.

    Args:
        error: redis-py's error.
    """
    told = str(error).rstrip(".") or type(error).__name__
    found, mend = _found(error, told)
    return Trouble(f"{found} ({told[:_MOST_TOLD]})", mend)


def _found(error: RedisError | TimeoutError, told: str) -> tuple[str, str]:
    cause = error.__cause__ or error.__context__
    if isinstance(error, AuthenticationError):
        if any(word in told for word in ("required", "NOAUTH", "already authenticated")):
            return "it wants a password, and none was given", f"write :password@ into its URL in {_URLS}"
        return "it refuses the user or the password", f"correct the password in its URL in {_URLS}"
    if isinstance(error, NoPermissionError):
        return "its user may not run a command of the lock", "give the user all commands and keys: ACL SETUSER"
    if "max number of clients" in told:
        return "all of its connections are in use", (
            "raise maxclients, or lower CLAIMSVC_REDIS_POOL_SIZE or CLAIMSVC_WORKERS"
        )
    if isinstance(error, BusyLoadingError):
        return "it is loading its data", "wait until it has started"
    if isinstance(error, TimeoutError | RedisTimeoutError):
        return "it does not answer in time", (
            f"check that it runs, and that no firewall is in between, or correct its place in {_URLS}"
        )
    if isinstance(cause, ConnectionRefusedError):
        return "no server listens at its host and port", f"start it, or correct its place in {_URLS}"
    if isinstance(cause, socket.gaierror):
        return "its host name is unknown", f"correct the host in {_URLS}, or the DNS of this machine"
    if isinstance(error, RedisConnectionError):
        return "it closes the connection, or is no Redis", (
            f"look into its log; check that rediss:// is for TLS alone, or correct its place in {_URLS}"
        )
    return "it refuses what it is asked", f"fix what the error says, or correct its URL in {_URLS}"
