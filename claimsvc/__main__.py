"""The command line: `claimsvc`, or `python -m claimsvc`."""

import errno
import os
import sys
from typing import NoReturn

from alembic.util import CommandError
from rich.console import Console
from rich.markup import escape
from sqlalchemy.exc import OperationalError

from claimsvc import server
from claimsvc.cli import app
from claimsvc.errors import ClaimsvcError, SettingsError, UnavailableError

__all__ = ["app", "main"]


def main() -> None:
    """The entry point of the `claimsvc` program. A failure of our own is its message; others keep their traceback."""
    try:
        app()
    except UnavailableError as error:
        _exit(f"{error}; `claimsvc doctor` says more", server.EXIT_FAILED)
    except ClaimsvcError as error:
        _exit(str(error), server.EXIT_SETTINGS if isinstance(error, SettingsError) else server.EXIT_FAILED)
    except CommandError as error:  # from migrations, which know no errors of ours
        _exit(f"The schema is of another version, which is to migrate it: {error}", server.EXIT_FAILED)
    except OperationalError as error:  # from them, too
        _exit(f"PostgreSQL refused, or does not answer: {str(error.orig).splitlines()[0]}", server.EXIT_FAILED)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        # What could not be written would be tried again at the exit, and fail again, which has a status of its own.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _exit(f"Nothing more can be written: {error.strerror}", server.EXIT_FAILED)


def _exit(message: str, status: int) -> NoReturn:
    Console(stderr=True).print(f"[red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
