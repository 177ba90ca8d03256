"""The command line: `claimsvc`, or `python -m claimsvc`."""

import errno
import os
import sys
from typing import NoReturn

from claimsvc.cli import app
from claimsvc.errors import EXIT_FAILED, ClaimsvcError, UnavailableError

__all__ = ["app", "main"]


def main() -> None:
    """Run the program. An error of the service prints its message; any other error prints a traceback."""
    try:
        app()
    except UnavailableError as error:
        why = f": {error.trouble}" if error.trouble is not None else ""
        _exit(f"{error}{why}; run `claimsvc doctor` for details", EXIT_FAILED)
    except ClaimsvcError as error:
        _exit(str(error), error.exit_status)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        # Python flushes standard output at exit, which would fail again and change the exit status.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _exit(f"The output cannot be written: {error.strerror}", EXIT_FAILED)
    except Exception as error:  # from migrations, which do not raise errors of the service
        if _is(error, "alembic.util", "CommandError"):
            _exit(f"The schema was created by a different version; run its `migrate`: {error}", EXIT_FAILED)
        if _is(error, "sqlalchemy.exc", "OperationalError"):
            from claimsvc.postgres import trouble_of  # imported by now, as it has raised

            trouble = trouble_of(error.orig)  # type: ignore[attr-defined]
            _exit(f"CLAIMSVC_DATABASE_URL: PostgreSQL cannot be used: {trouble}", EXIT_FAILED)
        raise


def _is(error: Exception, module: str, name: str) -> bool:
    # A module that was not imported raised nothing. Most commands need neither library, and both are slow to import.
    return module in sys.modules and isinstance(error, getattr(sys.modules[module], name))


def _exit(message: str, status: int) -> NoReturn:
    from rich.console import Console  # imported here, because only a failure needs it
    from rich.markup import escape

    from claimsvc.config import hint

    if advice := hint():
        message = f"{message}\n{advice}"
    Console(stderr=True).print(f"[red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
