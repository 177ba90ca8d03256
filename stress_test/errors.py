"""Errors that prevent a run. Answers to claims are recorded, not raised."""

EXIT_PASSED = 0
EXIT_VIOLATED = 1
EXIT_USAGE = 2
EXIT_UNAVAILABLE = 69  # EX_UNAVAILABLE of sysexits.h


class StressTestError(Exception):
    """The run has no result. The message is one sentence that says what to do."""

    exit_status: int = EXIT_USAGE


class UsageError(StressTestError):
    """The caller must change an option, a variable or a limit."""


class ServiceUnavailableError(StressTestError):
    """The service could not be reached, or could not create the coupons."""

    exit_status = EXIT_UNAVAILABLE
