"""OpenTelemetry traces of claims, disabled by default.

Only the modules of this package import OpenTelemetry, and they are imported only if tracing is enabled. Otherwise it
need not be installed.
"""

from contextlib import AbstractAsyncContextManager, nullcontext
from importlib import import_module
from typing import TYPE_CHECKING

from claimsvc.errors import SettingsError

if TYPE_CHECKING:
    from claimsvc.observability.tracing.tracing import Tracing


def open_tracing(url: str | None, *, traces_per_second: int) -> "AbstractAsyncContextManager[Tracing | None]":
    """Open tracing for this process; None if it is disabled. On leaving, the remaining spans are sent.

    Args:
        url: of the collector, for OTLP over HTTP; None disables tracing.
        traces_per_second: most claims that are traced each second.

    Raises:
        SettingsError: OpenTelemetry is not installed.
    """
    if url is None:
        return nullcontext()
    try:
        module = import_module("claimsvc.observability.tracing.tracing")
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"CLAIMSVC_TRACING_URL: tracing needs packages that are not installed ({error.name} is missing): "
            "install claimsvc[tracing], or unset it"
        ) from error
    opened: AbstractAsyncContextManager[Tracing] = module.opened(url, traces_per_second=traces_per_second)
    return opened
