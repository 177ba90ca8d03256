"""Why a run could not be made at all. An answer to a claim is never an error here: it is recorded."""

EXIT_PASSED = 0
EXIT_VIOLATED = 1
EXIT_USAGE = 2
EXIT_UNAVAILABLE = 69  # EX_UNAVAILABLE of sysexits.h


class StressTestError(Exception):
    """There is no result. The message is one sentence that says what to do."""

    exit_status: int = EXIT_USAGE


class UsageError(StressTestError):
    """The caller must change an option, a variable or a limit."""


class ServiceUnavailableError(StressTestError):
    """The service could not be reached, or could not prepare the run."""

    exit_status = EXIT_UNAVAILABLE
