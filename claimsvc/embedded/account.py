"""The user that the servers run as. PostgreSQL refuses to run as root, so root's servers run as `nobody`."""

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from claimsvc.errors import EmbeddedServiceError

_OVERFLOW_ID = 65534  # the usual id of `nobody`, for systems without that name


@dataclass(frozen=True, slots=True)
class Account:
    """A user and group id of this machine."""

    uid: int
    gid: int

    @property
    def is_ours(self) -> bool:
        return self.uid == os.geteuid()

    def popen_arguments(self) -> dict[str, Any]:
        """Return the arguments of `subprocess` that run a program as this user."""
        return {} if self.is_ours else {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, path: Path) -> None:
        """Make this user the owner of a path, without the paths below it.

        Raises:
            EmbeddedServiceError: the owner cannot be changed.
        """
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
    """Return the account of this process."""
    return Account(os.geteuid(), os.getegid())


def server_account() -> Account:
    """Return the account for servers: that of this process, or `nobody` if this process is root's."""
    if os.geteuid() != 0:
        return current_account()
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        return Account(_OVERFLOW_ID, _OVERFLOW_ID)
    return Account(nobody.pw_uid, nobody.pw_gid)


def require_reachable(path: Path, account: Account) -> None:
    """Check that the servers' user can enter a folder.

    Raises:
        EmbeddedServiceError: it may not enter the folder or one above it; the message names it.
    """
    if account.is_ours:
        return
    for folder in (*reversed(path.parents), path):
        # Tried as that user, because modes do not show ACLs and mount options.
        entered = subprocess.run(  # noqa: S603 - fixed command
            ["/bin/sh", "-c", 'cd "$1"', "sh", folder],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            **account.popen_arguments(),
        )
        if entered.returncode != 0:
            raise EmbeddedServiceError(
                f"PostgreSQL refuses to run as root, so it runs as `nobody`, which may not enter {folder}: choose "
                "another state folder with --state-dir or CLAIMSVC_STATE_DIR, or run this as an ordinary user."
            )
