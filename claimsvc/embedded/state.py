"""The state folder, in which embedded servers keep their data. One run at a time can use it."""

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from claimsvc.embedded.account import Account, require_reachable, server_account
from claimsvc.errors import EmbeddedServiceError

# Longest time in which the guards of a killed run end their servers and free the folder.
_TAKEOVER_SECONDS = 20.0
_CONTENTS = ("admin-key", "environment", "postgres", "programs", "valkey-*")


def default_state_dir(checkout: Path) -> Path:
    """Return the state folder of a checkout: inside it, or for root in /var/lib, which `nobody` can enter."""
    if os.geteuid() != 0:
        return checkout / ".claimsvc"
    digest = hashlib.sha256(str(checkout).encode()).hexdigest()[:8]
    return Path("/var/lib/claimsvc") / f"{checkout.name or 'root'}-{digest}"


@contextmanager
def temporary_state_dir() -> Iterator[Path]:
    """Create a folder that the servers can enter, and delete it on leaving."""
    with tempfile.TemporaryDirectory(prefix="claimsvc-", ignore_cleanup_errors=True) as folder:
        path = Path(folder).resolve()
        path.chmod(0o711)
        yield path


class StateDir:
    """An open state folder.

    Args:
        path: of the folder.
        account: the servers' user.
        lock_fd: the locked file. The guards hold it too, until their servers have ended.
    """

    def __init__(self, path: Path, account: Account, lock_fd: int) -> None:
        self.path = path
        self.account = account
        self.lock_fd = lock_fd

    def server_folder(self, name: str) -> Path:
        """Return a subfolder that only the servers' user can enter; create it if missing.

        Raises:
            EmbeddedServiceError: it belongs to another user.
        """
        folder = self.path / name
        if not folder.exists():
            folder.mkdir(mode=0o700)
            self.account.own(folder)
        if folder.stat().st_uid != self.account.uid:
            raise EmbeddedServiceError(
                f"{folder} belongs to another user: choose another state folder with --state-dir or "
                "CLAIMSVC_STATE_DIR, or delete its data with --fresh."
            )
        return folder

    def delete_data(self) -> None:
        """Delete the data in the folder. Only known names, because the folder may be any that a user typed."""
        for pattern in _CONTENTS:
            for path in self.path.glob(pattern):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read. It is created with these permissions, so it is never readable."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


@contextmanager
def open_state_dir(path: Path, *, fresh: bool = False) -> Iterator[StateDir]:
    """Open and lock a state folder; create it if missing.

    Args:
        path: of the folder.
        fresh: delete its data first.

    Raises:
        EmbeddedServiceError: it cannot be written, another run uses it, or the servers' user cannot enter it.
    """
    account = server_account()
    path = path.absolute()
    try:
        _make(path, account)
        lock_fd = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        require_reachable(path, account)
        _lock(lock_fd, path)
        state = StateDir(path, account, lock_fd)
        try:
            if fresh:
                state.delete_data()
        except OSError as error:
            raise _unwritable(path, error) from error
        yield state
    finally:
        os.close(lock_fd)


def _make(path: Path, account: Account) -> None:
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        # Set explicitly, because root's umask may hide the folders from `nobody`.
        folder.chmod(0o700 if account.is_ours else 0o755)


def _lock(lock_fd: int, path: Path) -> None:
    deadline = time.monotonic() + _TAKEOVER_SECONDS
    while True:
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            owner = os.pread(lock_fd, 32, 0).strip()
            # If the owner is dead, its guards are still ending the servers.
            if not _is_dead(owner) or time.monotonic() > deadline:
                raise EmbeddedServiceError(
                    f"Another run (process {owner.decode() or 'unknown'}) uses the state folder {path}: stop it, or "
                    "choose another folder with --state-dir or CLAIMSVC_STATE_DIR."
                ) from None
            time.sleep(0.05)
    os.ftruncate(lock_fd, 0)
    os.pwrite(lock_fd, b"%d\n" % os.getpid(), 0)


def _is_dead(pid: bytes) -> bool:
    if not pid.isdigit():
        return False
    with contextlib.suppress(PermissionError):
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return True
    return False


def _unwritable(path: Path, error: OSError) -> EmbeddedServiceError:
    return EmbeddedServiceError(
        f"The state folder {path} cannot be written ({error.strerror}): choose another with --state-dir or "
        "CLAIMSVC_STATE_DIR."
    )
