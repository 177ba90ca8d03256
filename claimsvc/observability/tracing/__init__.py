"""OpenTelemetry traces of claims, off unless they are asked for.

Only the files of this room know OpenTelemetry, and this one imports none of them before tracing is switched on: without
it, it need not even be installed.
"""

from contextlib import AbstractAsyncContextManager, nullcontext
from importlib import import_module
from typing import TYPE_CHECKING

from claimsvc.errors import SettingsError

if TYPE_CHECKING:
    from claimsvc.observability.tracing.tracing import Tracing


def open_tracing(url: str | None, *, traces_per_second: int) -> "AbstractAsyncContextManager[Tracing | None]":
    """What traces this process; None if nothing is to. On leaving, what was traced is sent, as far as it can be.

    Args:
        url: where OTLP over HTTP takes traces; None for no tracing.
        traces_per_second: how many claims are traced each second.

    Raises:
        SettingsError: OpenTelemetry is not installed.
    """
    if url is None:
        return nullcontext()
    try:
        module = import_module("claimsvc.observability.tracing.tracing")
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"CLAIMSVC_TRACING_URL: tracing needs more than is installed ({error.name} is missing): "
            "install claimsvc[tracing], or do not set it"
        ) from error
    opened: AbstractAsyncContextManager[Tracing] = module.opened(url, traces_per_second=traces_per_second)
    return opened
