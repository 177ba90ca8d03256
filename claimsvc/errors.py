"""Failures: what is raised when a question could not be answered. Expected results are values, in `domain`."""

# What a program of ours exits with.
EXIT_OK = 0
EXIT_FAILED = 1
EXIT_SETTINGS = 78  # EX_CONFIG of sysexits.h


class ClaimsvcError(Exception):
    """The root of every error that this package raises on purpose."""


class SettingsError(ClaimsvcError):
    """The service cannot start as it is set up. The message says what to change."""


class EmbeddedServiceError(ClaimsvcError):
    """A PostgreSQL or Valkey of our own could not be started. The message says what to do."""


class PermissionDeniedError(ClaimsvcError):
    """The caller lacks a scope; `scope` names it."""

    def __init__(self, scope: str) -> None:
        super().__init__(f"the caller lacks the scope {scope}")
        self.scope = scope


class TransientError(ClaimsvcError):
    """Nothing was decided; the same request may succeed later.

    `retry_after_seconds` is what the caller is advised to wait.
    """

    def __init__(self, detail: str, *, retry_after_seconds: float = 1.0) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after_seconds = retry_after_seconds


class LockBusyError(TransientError):
    """The coupon's lock was held by others for as long as a claim may wait."""


class UnavailableError(TransientError):
    """Something that the service needs does not answer, or the service has no room for more.

    `dependency` names it: `redis`, `postgresql` or `claimsvc`.
    """

    def __init__(self, detail: str, *, dependency: str, retry_after_seconds: float = 1.0) -> None:
        super().__init__(detail, retry_after_seconds=retry_after_seconds)
        self.dependency = dependency


class InvariantViolatedError(ClaimsvcError):
    """The database contradicts a promise of this service; the transaction was rolled back."""
