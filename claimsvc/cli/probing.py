"""`claimsvc probe`: whether claiming works, as a user sees it."""

from typing import TYPE_CHECKING, Annotated

import typer

from claimsvc.cli.usage import must_be
from claimsvc.errors import EXIT_FAILED, EXIT_OK, EXIT_SETTINGS, SettingsError

if TYPE_CHECKING:
    from claimsvc.prober import Prober

_PORT = "--listen"


def probe(
    url: Annotated[str, typer.Argument(help="The service or its load balancer, such as http://127.0.0.1:8080.")],
    every: Annotated[
        float | None,
        typer.Option(min=1, max=3600, metavar="SECONDS", help="Probe every so many seconds, until it is stopped."),
    ] = None,
    listen: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, metavar="PORT", help="With --every: serve metrics to Prometheus here; 0: a free port."
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address for --listen, such as 0.0.0.0 in a container.")] = "127.0.0.1",
    coupon: Annotated[
        str, typer.Option(help="The coupon that is kept for probes; created if --key may.")
    ] = "claimsvc-probe",
    key: Annotated[
        str | None,
        typer.Option(
            envvar="CLAIMSVC_PROBE_KEY",
            show_envvar=True,
            help="A key with claims:write, if claiming needs tokens, and coupons:write, if there is no coupon yet.",
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=60, metavar="SECONDS", help="After so long there is no answer.")
    ] = 5.0,
) -> None:
    """Make a real claim over HTTP and return it: does claiming work, as a user sees it?

    It needs no settings, and runs anywhere. Nothing is retried. Each probe is a user of its own, and leaves one
    cancelled claim behind.

    Exit status: 0 the claim was made and returned, 1 there was no answer, or a failure of the service: users' claims
    most likely fail as well, 78 the service refused the probe: its key or its coupon is wrong. With --every, a line
    is printed whenever this changes, and SIGTERM or Ctrl-C ends it with 0.
    """
    if listen is not None and every is None:
        raise typer.BadParameter("needs --every, such as --every 10", param_hint=_PORT)
    # Imported here, because help must not wait for aiohttp.
    import asyncio

    from claimsvc.cli.terminal import check_coupon_name, say
    from claimsvc.prober import Prober, Verdict, in_words

    check_coupon_name(coupon)
    try:
        prober = Prober(url, key=key, coupon=coupon, timeout_seconds=timeout)
    except ValueError as error:
        raise must_be("the URL of a service", "URL", "http://127.0.0.1:8080") from error
    if every is not None:
        asyncio.run(_repeatedly(prober, every, host, listen))
        raise typer.Exit(EXIT_OK)
    found = asyncio.run(prober.probe())
    say(in_words(found))
    statuses = {Verdict.CLAIMED: EXIT_OK, Verdict.FAILED: EXIT_FAILED, Verdict.REFUSED: EXIT_SETTINGS}
    raise typer.Exit(statuses[found.verdict])


async def _repeatedly(prober: "Prober", every: float, host: str, port: int | None) -> None:
    """Probe until SIGTERM or SIGINT."""
    import asyncio
    import signal

    from claimsvc.cli.terminal import say
    from claimsvc.prober import ProbeMetrics, probe_repeatedly

    metrics = ProbeMetrics(prober.url)
    if port is not None:
        try:
            bound = metrics.serve(host, port)
        except OSError as error:
            raise SettingsError(
                f"Cannot listen on {host} port {port} ({error.strerror}): change {_PORT} or --host."
            ) from error
        say(f"Metrics: http://{host}:{bound}/metrics")
    probing = asyncio.create_task(probe_repeatedly(prober, every_seconds=every, metrics=metrics, tell=say))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, probing.cancel)
    await asyncio.wait({probing})
    if not probing.cancelled():
        probing.result()
