"""A disk that is full: a small file system of its own, on which PostgreSQL keeps the claims."""

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from psycopg import sql

from claimsvc.embedded import EmbeddedServices
from tests.support.injectors.postgres import Session, connect

_BLOCK = bytes(64 * 1024)


def why_not() -> str | None:
    """What this machine lacks for it, in a sentence; None if nothing."""
    if os.geteuid() != 0 or not all(shutil.which(program) for program in ("mount", "umount")):
        return "A disk that is full is a small tmpfs, which only root can mount."
    return None


class SmallDisk:
    """A mounted file system of a few megabytes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Leave not one byte."""
        size = len(_BLOCK)
        with self._ballast.open("ab", buffering=0) as ballast:
            while size:
                try:
                    ballast.write(_BLOCK[:size])
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    size //= 2

    def clear(self) -> None:
        self._ballast.unlink(missing_ok=True)

    def is_full(self) -> bool:
        return os.statvfs(self.folder).f_bavail == 0


@contextmanager
def small_disk(services: EmbeddedServices, *, megabytes: int = 16) -> Iterator[SmallDisk]:
    """A tmpfs inside the state folder, where the servers' user may write."""
    folder = services.state_dir / "small-disk"
    owner = (services.state_dir / "postgres").stat()
    folder.mkdir()
    options = f"size={megabytes}m,mode=0700,uid={owner.st_uid},gid={owner.st_gid}"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True)
    assert mounted.returncode == 0, mounted.stderr
    try:
        yield SmallDisk(folder)
    finally:
        # Lazily: PostgreSQL may still have files of it open.
        subprocess.run(["umount", "--lazy", folder], check=True)
        with suppress(OSError):
            folder.rmdir()


@contextmanager
def log_on(disk: SmallDisk, services: EmbeddedServices) -> Iterator[None]:
    """Have PostgreSQL, restarted for it, keep its write-ahead log on that disk. On leaving it is stopped for good."""
    assert services.postgres is not None
    log = services.state_dir / "postgres" / "data" / "pg_wal"
    place = disk.folder / "pg_wal"
    services.postgres.stop()
    subprocess.run(["cp", "--archive", log, place], check=True)
    shutil.rmtree(log)
    log.symlink_to(place)
    services.postgres.start()
    try:
        yield
    finally:
        services.postgres.stop()


@contextmanager
def claims_on(disk: SmallDisk, url: str) -> Iterator[None]:
    """Have PostgreSQL keep claims, and their indexes, on that disk until this is left."""
    place = disk.folder / "tablespace"
    place.mkdir(mode=0o700)
    owner = disk.folder.stat()
    os.chown(place, owner.st_uid, owner.st_gid)
    with connect(url) as session:
        session.execute(sql.SQL("CREATE TABLESPACE small LOCATION {}").format(str(place)))
        _move_claims(session, "small")
        try:
            yield
        finally:
            _move_claims(session, "pg_default")
            session.execute("DROP TABLESPACE small")


def _move_claims(session: Session, tablespace: str) -> None:
    indexes = session.execute("SELECT indexname FROM pg_indexes WHERE tablename = 'user_claims'").fetchall()
    moved = [("TABLE", "user_claims"), *(("INDEX", str(name)) for (name,) in indexes)]
    for kind, name in moved:
        session.execute(
            sql.SQL("ALTER {} {} SET TABLESPACE {}").format(
                sql.SQL(kind), sql.Identifier(name), sql.Identifier(tablespace)
            )
        )
