"""Why PostgreSQL cannot be used, and what to do: a wrong password is not a server that is down."""

import re

import psycopg

from claimsvc.errors import Trouble

_URL = "CLAIMSVC_DATABASE_URL"
_MIGRATE = "run `claimsvc migrate`"

# libpq reports a refused connection without an SQLSTATE, so its words decide. What a server says in another language is
# told as it is.
_REFUSED_CONNECTIONS = (
    (r"no password supplied", "it wants a password, and none was given", f"write user:password@ into {_URL}"),
    (
        r"password authentication failed|authentication failed for user",
        "it refuses the user or the password",
        f"correct the user and the password in {_URL}",
    ),
    (r"role .* does not exist", "it has no such user", f"create the role, or correct the user in {_URL}"),
    (r"not permitted to log in", "its role may not log in", "ALTER ROLE ... LOGIN"),
    (
        r"no pg_hba\.conf entry|pg_hba\.conf rejects",
        "its pg_hba.conf admits no such user, database or address",
        "add an entry to pg_hba.conf, and reload it",
    ),
    (
        r"database .* does not exist",
        "it has no such database",
        f"create the database with `createdb` and {_MIGRATE}, or correct the name in {_URL}",
    ),
    (
        r"too many clients|connection slots|too many connections",
        "all of its connections are in use",
        "raise max_connections, or lower CLAIMSVC_DATABASE_POOL_SIZE or CLAIMSVC_WORKERS",
    ),
    (
        r"starting up|shutting down|not yet accepting|in recovery mode",
        "it is starting or stopping",
        "wait until it has started; its log says what it does",
    ),
    (r"Connection refused", "no server listens at its host and port", f"start it, or correct {_URL}: host and port"),
    (
        r"resolve host|translate host name",
        "its host name is unknown",
        f"correct the host in {_URL}, or the DNS of this machine",
    ),
    (
        r"timeout expired|timed out",
        "it does not answer in time",
        f"check that it runs, and that no firewall is in between, or correct {_URL}: host and port",
    ),
    (r"unreachable|No route", "its host cannot be reached", f"check the network, or correct the host in {_URL}"),
    (r"SSL|certificate|TLS", "it and this program do not agree on TLS", f"correct `sslmode` in {_URL}, or the server"),
    (
        r"expected authentication|invalid response|closed the connection|unexpected message",
        "it closes the connection, or is no PostgreSQL",
        f"look into its log, or correct {_URL}: host and port",
    ),
)
_REFUSED_STATEMENTS = {
    "42P01": ("its schema is missing", _MIGRATE),
    "42703": ("its schema is too old", _MIGRATE),
    "42501": (
        "its user may not use the tables of the service",
        f"GRANT it the rights, or connect as the user who ran `claimsvc migrate`: correct {_URL}",
    ),
}


def trouble_of(error: BaseException) -> Trouble:
    """Why a connection or a statement failed. Never contains a password.

    Args:
        error: psycopg's error.
    """
    words = " ".join(str(error).split())
    # What libpq says before it is where it connected to, which the settings say, too.
    told = re.sub(r"^.*? failed: (FATAL: )? *", "", words) if " failed: " in words else words
    if isinstance(error, psycopg.Error) and error.sqlstate in _REFUSED_STATEMENTS:
        found, mend = _REFUSED_STATEMENTS[error.sqlstate]
        return Trouble(f"{found} ({told})", mend)
    for pattern, found, mend in _REFUSED_CONNECTIONS:
        if re.search(pattern, words):
            return Trouble(f"{found} ({told})", mend)
    return Trouble(told or type(error).__name__, f"start it, or correct {_URL}")
