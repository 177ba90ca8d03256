"""The state folder: where embedded servers keep their data, one run at a time."""

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

# Guards of a killed run need this long at most to end their servers; only then is the folder free.
_TAKEOVER_SECONDS = 20.0
_CONTENTS = ("admin-key", "environment", "postgres", "programs", "valkey-*")


def default_state_dir(checkout: Path) -> Path:
    """Where data of a checkout is kept: inside it, or for root where `nobody` can reach it as well."""
    if os.geteuid() != 0:
        return checkout / ".claimsvc"
    digest = hashlib.sha256(str(checkout).encode()).hexdigest()[:8]
    return Path("/var/lib/claimsvc") / f"{checkout.name or 'root'}-{digest}"


@contextmanager
def temporary_state_dir() -> Iterator[Path]:
    """A new folder that the servers can reach, thrown away on leaving."""
    with tempfile.TemporaryDirectory(prefix="claimsvc-", ignore_cleanup_errors=True) as folder:
        path = Path(folder).resolve()
        path.chmod(0o711)
        yield path


class StateDir:
    """An open state folder. `lock_fd` is its lock: the guards hold it too, until their servers have ended."""

    def __init__(self, path: Path, account: Account, lock_fd: int) -> None:
        self.path = path
        self.account = account
        self.lock_fd = lock_fd

    def server_folder(self, name: str) -> Path:
        """A folder inside that belongs to the servers' user alone.

        Raises:
            EmbeddedServiceError: it was made by another user.
        """
        folder = self.path / name
        if not folder.exists():
            folder.mkdir(mode=0o700)
            self.account.own(folder)
        if folder.stat().st_uid != self.account.uid:
            raise EmbeddedServiceError(
                f"{folder} was made by another user: choose another state folder with --state-dir or "
                "CLAIMSVC_STATE_DIR, or throw this one's data away with --fresh."
            )
        return folder

    def throw_away(self) -> None:
        """Remove what was kept. Only names of our own, for the folder may be anything that somebody typed."""
        for pattern in _CONTENTS:
            for path in self.path.glob(pattern):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, from the first moment on."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


@contextmanager
def open_state_dir(path: Path, *, fresh: bool = False) -> Iterator[StateDir]:
    """Make the folder if need be and keep it to ourselves; with `fresh`, empty it first.

    Raises:
        EmbeddedServiceError: it cannot be written, another run uses it, or the servers cannot reach it.
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
                state.throw_away()
        except OSError as error:
            raise _unwritable(path, error) from error
        yield state
    finally:
        os.close(lock_fd)


def _make(path: Path, account: Account) -> None:
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        # Said outright, because root's umask may close to `nobody` what was just made for it.
        folder.chmod(0o700 if account.is_ours else 0o755)


def _lock(lock_fd: int, path: Path) -> None:
    deadline = time.monotonic() + _TAKEOVER_SECONDS
    while True:
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            owner = os.pread(lock_fd, 32, 0).strip()
            # A dead owner's guards are still ending its servers: that does not take long.
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
