"""The errors of claims that were refused before a decision."""

from claimsvc.errors import LockBusyError, UnavailableError


def lock_busy() -> LockBusyError:
    return LockBusyError("other instances held the coupon's lock until the timeout; nothing was decided")


def full() -> UnavailableError:
    return UnavailableError("this instance has reached its limit of waiting claims", dependency="claimsvc")


def overloaded() -> UnavailableError:
    return UnavailableError("the claims before this one took too long; nothing was decided", dependency="claimsvc")


def outcome_unknown() -> UnavailableError:
    return UnavailableError(
        "the claim is not decided yet and may still succeed: repeat it to learn its outcome",
        dependency="claimsvc",
    )


def stopping() -> UnavailableError:
    return UnavailableError("this instance is stopping", dependency="claimsvc")
