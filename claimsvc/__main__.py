"""The command line: `claimsvc`, or `python -m claimsvc`."""

import errno
import os
import sys
from typing import NoReturn

from claimsvc.cli import app
from claimsvc.errors import EXIT_FAILED, EXIT_SETTINGS, ClaimsvcError, SettingsError, UnavailableError

__all__ = ["app", "main"]


def main() -> None:
    """The entry point of the `claimsvc` program. A failure of our own is its message; others keep their traceback."""
    try:
        app()
    except UnavailableError as error:
        _exit(f"{error}; `claimsvc doctor` says more", EXIT_FAILED)
    except ClaimsvcError as error:
        _exit(str(error), EXIT_SETTINGS if isinstance(error, SettingsError) else EXIT_FAILED)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        # What could not be written would be tried again at the exit, and fail again, which has a status of its own.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _exit(f"Nothing more can be written: {error.strerror}", EXIT_FAILED)
    except Exception as error:  # from migrations, which know no errors of ours
        if _is(error, "alembic.util", "CommandError"):
            _exit(f"The schema was created by a different version; run its `migrate`: {error}", EXIT_FAILED)
        if _is(error, "sqlalchemy.exc", "OperationalError"):
            cause = str(error.orig).splitlines()[0]  # type: ignore[attr-defined]
            _exit(f"PostgreSQL refused, or does not answer: {cause}", EXIT_FAILED)
        raise


def _is(error: Exception, module: str, name: str) -> bool:
    # What has not been imported has raised nothing; most commands need neither library, and both take long to import.
    return module in sys.modules and isinstance(error, getattr(sys.modules[module], name))


def _exit(message: str, status: int) -> NoReturn:
    from rich.console import Console  # only a failure needs it
    from rich.markup import escape

    Console(stderr=True).print(f"[red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
