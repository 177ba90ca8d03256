"""The options of the scenarios on the command line."""

from pathlib import Path
from typing import Annotated

import typer

from stress_test.scenarios import SUSTAINED_CONNECTIONS

DEFAULT_URL = "http://127.0.0.1:8080"
_MAX_AMOUNT = 2**31 - 1  # the limit of the contract

Urls = Annotated[
    list[str] | None,
    typer.Option(
        "--url",
        envvar="URL",
        help="URL of an instance; repeat it to distribute claims over several.",
        show_default=DEFAULT_URL,
    ),
]
AdminKey = Annotated[
    str, typer.Option(envvar="CLAIMSVC_ADMIN_KEY", help="Key for creating the coupons.", show_default=False)
]
Rounds = Annotated[int, typer.Option(min=1, max=10_000, help="Number of rounds, each with new coupons.")]
Connections = Annotated[
    int | None,
    typer.Option(min=1, help="Most open connections; claims wait for one.", show_default="one for every claim"),
]
SustainedConnections = Annotated[
    int | None,
    typer.Option(min=1, help="Most open connections; claims wait for one.", show_default=str(SUSTAINED_CONNECTIONS)),
]
Timeout = Annotated[float, typer.Option(min=0.1, help="Timeout of a request, in seconds.")]
JsonFile = Annotated[Path | None, typer.Option("--json", dir_okay=False, help="Also write the result to this file.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only the verdict.")]
Claims = Annotated[int, typer.Option(min=1, help="Number of claims, sent together.")]
ClaimsEach = Annotated[int, typer.Option(min=1, help="Number of claims on each coupon.")]
Quota = Annotated[int, typer.Option(min=1, max=_MAX_AMOUNT, help="Units of each coupon.")]
Plentiful = Annotated[
    int | None,
    typer.Option(min=1, max=_MAX_AMOUNT, help="Units of each coupon.", show_default="one for every claim"),
]
Coupons = Annotated[int, typer.Option(min=1, max=10_000, help="Number of coupons that are claimed concurrently.")]
Seed = Annotated[int | None, typer.Option(help="Seed of the order of claims.", show_default="random")]
Rate = Annotated[float, typer.Option(min=0.1, max=100_000, help="Claims sent per second, whether answered or not.")]
Duration = Annotated[float, typer.Option(min=0.1, help="How long claims are sent, in seconds.")]
MaxUnknown = Annotated[int, typer.Option(min=0, help="Claims per round that may end in 5xx or without an answer.")]

Users = Annotated[int, typer.Option("--claims", min=1, help="Number of users who join.")]
Pace = Annotated[int, typer.Option("--rate", min=1, max=1000, help="Most starts within any second.")]
Concurrency = Annotated[int, typer.Option(min=1, max=1000, help="Most claims under way at once.")]
MaxWait = Annotated[int, typer.Option(min=1, max=86_400, help="Who has not been started by then expires, in seconds.")]
MaxLength = Annotated[int, typer.Option(min=1, max=1_000_000, help="Most users who wait at once.")]
Grace = Annotated[float, typer.Option(min=0.1, help="How much longer than --max-wait a ticket may take, in seconds.")]
Late = Annotated[int, typer.Option(min=0, help="Number of users who join after the start.")]
StartsIn = Annotated[float, typer.Option(min=1, help="From the creation of the coupon to its start, in seconds.")]
