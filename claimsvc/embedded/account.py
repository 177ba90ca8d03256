"""The user that the servers run as. PostgreSQL refuses root, so root's servers run as `nobody`."""

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from claimsvc.errors import EmbeddedServiceError

_OVERFLOW_ID = 65534  # what `nobody` is wherever nobody gave it a name


@dataclass(frozen=True, slots=True)
class Account:
    """A user and group of this machine."""

    uid: int
    gid: int

    @property
    def is_ours(self) -> bool:
        return self.uid == os.geteuid()

    def popen_arguments(self) -> dict[str, Any]:
        """What makes `subprocess` run a program as this user."""
        return {} if self.is_ours else {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, path: Path) -> None:
        """Give a path, not what is below it, to this user."""
        if self.is_ours:
            return
        try:
            os.chown(path, self.uid, self.gid)
        except OSError as error:
            raise EmbeddedServiceError(
                f"PostgreSQL refuses to run as root, and {path} cannot be given to the user `nobody` "
                f"({error.strerror}): run this as an ordinary user."
            ) from error


def current_account() -> Account:
    """Ourselves."""
    return Account(os.geteuid(), os.getegid())


def server_account() -> Account:
    """Ourselves, or `nobody` if we are root."""
    if os.geteuid() != 0:
        return current_account()
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        return Account(_OVERFLOW_ID, _OVERFLOW_ID)
    return Account(nobody.pw_uid, nobody.pw_gid)


def require_reachable(path: Path, account: Account) -> None:
    """Check that the servers can get to a folder.

    Raises:
        EmbeddedServiceError: a folder above it is closed to them; the message names it.
    """
    if account.is_ours:
        return
    for folder in (*reversed(path.parents), path):
        # Asked of the system as that user, because modes alone do not tell about ACLs and mount options.
        entered = subprocess.run(  # noqa: S603 - fixed command
            ["/bin/sh", "-c", 'cd "$1"', "sh", folder],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            **account.popen_arguments(),
        )
        if entered.returncode != 0:
            raise EmbeddedServiceError(
                f"PostgreSQL refuses to run as root, so it runs as `nobody`, who may not enter {folder}: choose a "
                "state folder elsewhere with --state-dir or CLAIMSVC_STATE_DIR, or run this as an ordinary user."
            )
