"""What a claim is told that waited in vain."""

from claimsvc.errors import LockBusyError, UnavailableError


def lock_busy() -> LockBusyError:
    return LockBusyError("the coupon's lock was held by others all the while; nothing was decided")


def full() -> UnavailableError:
    return UnavailableError("as many claims as this instance has room for are waiting", dependency="claimsvc")


def overloaded() -> UnavailableError:
    return UnavailableError("the claims before this one took too long; nothing was decided", dependency="claimsvc")


def outcome_unknown() -> UnavailableError:
    return UnavailableError(
        "the claim is not decided yet, and may still succeed: the same claim again tells its outcome",
        dependency="claimsvc",
    )


def stopping() -> UnavailableError:
    return UnavailableError("this instance is stopping", dependency="claimsvc")
