"""The errors of the service. Expected results, such as sold out, are values in `domain`."""

from dataclasses import dataclass

# Exit statuses of the programs.
EXIT_OK = 0
EXIT_FAILED = 1
EXIT_SETTINGS = 78  # EX_CONFIG of sysexits.h


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a server cannot be used, for operators: clients of the service are not told.

    Args:
        found: what is wrong.
        mend: what to do about it, as an order.
    """

    found: str
    mend: str

    def __str__(self) -> str:
        return f"{self.found}. To fix it: {self.mend}"


class ClaimsvcError(Exception):
    """Base class of all errors that this package raises.

    Args:
        message: for the log or the terminal.
        exit_status: of a command that fails with it.
    """

    def __init__(self, message: str, *, exit_status: int = EXIT_FAILED) -> None:
        super().__init__(message)
        self.exit_status = exit_status


class SettingsError(ClaimsvcError):
    """A setting is wrong, or does not work on this machine. The message says what to change."""

    def __init__(self, message: str) -> None:
        super().__init__(message, exit_status=EXIT_SETTINGS)


class EmbeddedServiceError(ClaimsvcError):
    """An embedded PostgreSQL or Valkey could not be started. The message says what to do."""


class PermissionDeniedError(ClaimsvcError):
    """The caller lacks a scope; `scope` names it."""

    def __init__(self, scope: str) -> None:
        super().__init__(f"the caller lacks the scope {scope}")
        self.scope = scope


class TransientError(ClaimsvcError):
    """Nothing was decided; the same request may succeed later.

    Args:
        detail: what went wrong, for the caller and the log.
        retry_after_seconds: how long the caller should wait.
    """

    def __init__(self, detail: str, *, retry_after_seconds: float = 1.0) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after_seconds = retry_after_seconds


class LockBusyError(TransientError):
    """Other instances held the coupon's lock until the claim timed out."""


class UnavailableError(TransientError):
    """A dependency of the service does not answer, or the service is overloaded or stopping.

    Args:
        detail: what went wrong.
        dependency: `redis`, `postgresql` or `claimsvc`.
        retry_after_seconds: how long the caller should wait.
        trouble: why, for operators; None if `detail` says all.
    """

    def __init__(
        self, detail: str, *, dependency: str, retry_after_seconds: float = 1.0, trouble: Trouble | None = None
    ) -> None:
        super().__init__(detail, retry_after_seconds=retry_after_seconds)
        self.dependency = dependency
        self.trouble = trouble


class InvariantViolatedError(ClaimsvcError):
    """The database violates an invariant of this service; the transaction was rolled back."""
