"""Notices variables that a shell has from the `environment` file of a `make run`.

The file names the run in CLAIMSVC_RUN, with a digest of the two URLs, so that variables which were set otherwise since
then are not taken for the run's.
"""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from claimsvc.config.environment import environment

_VARIABLE = "CLAIMSVC_RUN"
_OF_SERVERS = ("CLAIMSVC_DATABASE_URL", "CLAIMSVC_REDIS_URLS")
_DIGITS = 16


@dataclass(frozen=True, slots=True)
class RunVariables:
    """A run whose variables are set.

    Args:
        file: the file that they come from.
        is_over: whether the run has ended, so that its servers are gone.
    """

    file: Path
    is_over: bool


def run_marker(file: Path, variables: dict[str, str]) -> tuple[str, str]:
    """The variable that names this process as the run, and its value.

    Args:
        file: where the run writes its variables, and which it removes when it ends.
        variables: those that the file sets.
    """
    return _VARIABLE, f"{os.getpid()}:{_digest(variables)}:{file}"


def run_variables() -> RunVariables | None:
    """The run whose variables the environment has; None if it has none, or others were set since then."""
    found = environment()
    pid, _, rest = found.get(_VARIABLE, "").partition(":")
    digest, _, name = rest.partition(":")
    if not pid.isdecimal() or not name or digest != _digest(found):
        return None
    file = Path(name)
    return RunVariables(file, is_over=not (_is_alive(int(pid)) and _has(file, f"{pid}:{digest}:")))


def hint() -> str:
    """What to do about the variables of a run that is over, as a sentence; empty if there are none."""
    left = run_variables()
    if left is None or not left.is_over:
        return ""
    return (
        f"The variables of this shell are those of a run that is over ({left.file}): start `make run` and read its new "
        f"file, or `unset {' '.join((*_OF_SERVERS, _VARIABLE))}`."
    )


def _digest(variables: dict[str, str]) -> str:
    urls = "\n".join(variables.get(name, "") for name in _OF_SERVERS)
    return hashlib.sha256(urls.encode("utf-8", "surrogateescape")).hexdigest()[:_DIGITS]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _has(file: Path, marker: str) -> bool:
    """Whether the file is there, and is that run's: a later run writes its own to the same place."""
    try:
        return re.search(rf"(?<!\d){re.escape(marker)}", file.read_text()) is not None
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False
