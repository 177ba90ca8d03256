"""Where temporary files of the tests go, and what the processes that they start keep."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

_MEMORY = Path("/dev/shm")
_ENOUGH_BYTES = 4 * 1024**3


def use_memory() -> None:
    """Keep temporary folders, and with them the data of servers, in memory, if there is enough.

    The tests copy thousands of databases of some three hundred files each. Depending on the file system, a file on a
    disk costs ten times the CPU time of one in memory. A `TMPDIR` that is set is respected. What pytest makes
    (`tmp_path`) stays on the disk, because pytest keeps it.
    """
    if os.environ.get("TMPDIR") or not _is_fit(_MEMORY):
        return
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    os.environ["TMPDIR"] = str(_MEMORY)
    tempfile.tempdir = None  # it is looked for again


def keep_bytecode() -> None:
    """Let each process of the hundreds that are started find its modules compiled, whatever this one was told."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False


def _is_fit(folder: Path) -> bool:
    try:
        about = os.statvfs(folder)
        free_bytes = shutil.disk_usage(folder).free
    except OSError:  # not Linux
        return False
    # For root, programs of servers are copied beside their data and run there. Containers often forbid it here.
    return free_bytes >= _ENOUGH_BYTES and not about.f_flag & os.ST_NOEXEC and os.access(folder, os.W_OK)
