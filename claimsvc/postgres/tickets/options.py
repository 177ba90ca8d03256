"""The options of a claim that waits, as they are stored with its ticket."""

from collections.abc import Mapping
from typing import Any

from claimsvc.domain import ClaimOptions


def stored_options(options: ClaimOptions | None) -> dict[str, Any] | None:
    """Return the options of a claim as they are stored; None if it is a plain one."""
    if options is None:
        return None
    written = {
        "hold_seconds": options.hold_seconds,
        "attributes": dict(options.attributes),
        "token": {name: list(each) if isinstance(each, tuple) else each for name, each in options.token.items()},
    }
    found_ = {name: value for name, value in written.items() if value not in (None, {})}
    return found_ or None


def options_of(written: Mapping[str, Any] | None) -> ClaimOptions:
    """Return the options of a claim that were stored."""
    return ClaimOptions(**(written or {}))
