"""The command line: `claimsvc`, or `python -m claimsvc`."""

import asyncio
import hashlib
import json
import re
import secrets
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from sqlalchemy.exc import OperationalError

from claimsvc import domain, logs, server
from claimsvc.bootstrap import migrate as migrate_schema
from claimsvc.bootstrap import open_reconciler, open_storage
from claimsvc.config import load_database_settings, load_settings
from claimsvc.domain import Coupon, CouponDetail, CouponExists, StrategyName
from claimsvc.errors import ClaimsvcError, SettingsError
from claimsvc.jobs import Drift
from claimsvc.server.development import Development, run_development

_EPILOG = (
    "Settings are CLAIMSVC_* variables; the README lists them. Exit status: 0 done, 1 failed, 2 wrong usage, "
    "78 wrong settings, 130 interrupted."
)
_MOST_CLAIMANTS = 1000  # as many as the API shows

app = typer.Typer(
    help="Claims limited-stock coupons: many at once, each exactly once.",
    epilog=_EPILOG,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
coupon_app = typer.Typer(help="Create and look up coupons, directly in the database.", no_args_is_help=True)
key_app = typer.Typer(help="Make admin keys.", no_args_is_help=True)
app.add_typer(coupon_app, name="coupon")
app.add_typer(key_app, name="key")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
CouponName = Annotated[str, typer.Argument(help="Letters, digits and . _ - (at most 255, not dots alone).")]


def main() -> None:
    """The entry point of the `claimsvc` program. A failure of our own is its message; others keep their traceback."""
    try:
        app()
    except ClaimsvcError as error:
        _exit(str(error), server.EXIT_SETTINGS if isinstance(error, SettingsError) else server.EXIT_FAILED)
    except OperationalError as error:  # from migrations, which know no errors of ours
        _exit(f"PostgreSQL refused, or does not answer: {str(error.orig).splitlines()[0]}", server.EXIT_FAILED)


def _exit(message: str, status: int) -> NoReturn:
    Console(stderr=True).print(f"[red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)
    sys.exit(status)


@app.command()
def dev(
    command: Annotated[
        list[str] | None,
        typer.Argument(
            help="After `--`: run this against the service (URL and CLAIMSVC_ADMIN_KEY are set), then stop."
        ),
    ] = None,
    port: Annotated[
        int, typer.Option(envvar=["PORT", "CLAIMSVC_PORT"], min=0, max=65535, help="0: a free one.")
    ] = 8080,
    masters: Annotated[int, typer.Option(min=1, max=9, help="Valkey masters, an odd number.")] = 3,
    state_dir: Annotated[
        Path | None,
        typer.Option(envvar="CLAIMSVC_STATE_DIR", help="Where data is kept between runs.", show_default="./.claimsvc"),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Throw away what earlier runs have left.")] = False,
    temporary: Annotated[bool, typer.Option("--temporary", help="Keep nothing: use a new folder each time.")] = False,
    parent: Annotated[int | None, typer.Option(hidden=True, help="Stop when this parent process is gone.")] = None,
    database_url: Annotated[str | None, typer.Option(hidden=True, envvar="CLAIMSVC_DATABASE_URL")] = None,
    redis_urls: Annotated[str | None, typer.Option(hidden=True, envvar="CLAIMSVC_REDIS_URLS")] = None,
) -> None:
    """Run everything on this machine: PostgreSQL, Valkey, the service and a demo coupon. Ctrl-C stops it.

    Servers that CLAIMSVC_DATABASE_URL and CLAIMSVC_REDIS_URLS name are used instead of starting some.
    Root's data is kept in /var/lib/claimsvc, because PostgreSQL runs as `nobody` then.
    """
    if masters % 2 == 0:
        raise typer.BadParameter("a Redlock needs an odd number of masters", param_hint="--masters")
    status = run_development(
        Development(
            port=port,
            masters=masters,
            state_dir=state_dir,
            temporary=temporary,
            fresh=fresh,
            database_url=database_url or None,
            redis_urls=redis_urls or None,
            command=tuple(command or ()),
            parent_pid=parent,
        )
    )
    raise typer.Exit(status)


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="CLAIMSVC_HOST")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port to listen on.", show_default="CLAIMSVC_PORT")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=64, help="Processes that share the port.", show_default="CLAIMSVC_WORKERS"),
    ] = None,
) -> None:
    """Serve, on databases that CLAIMSVC_DATABASE_URL and CLAIMSVC_REDIS_URLS name. For production.

    SIGTERM and Ctrl-C stop it once the requests that it has accepted are answered.
    """
    settings = load_settings(host=host, port=port, workers=workers)
    logs.configure(settings.log_level, settings.log_format)
    status = server.serve(settings)
    raise typer.Exit(status)


@app.command(hidden=True)
def worker(listen_fd: int, parent_fd: int, ready_fd: int) -> None:
    """One of the processes that `serve --workers` starts; not for people."""
    settings = load_settings()
    logs.configure(settings.log_level, settings.log_format)
    status = server.serve_as_worker(settings, listen_fd, parent_fd, ready_fd)
    raise typer.Exit(status)


@app.command()
def migrate() -> None:
    """Bring the schema of CLAIMSVC_DATABASE_URL up to date. Safe to run again, and from several places at once."""
    migrate_schema(load_database_settings().database_url)
    Console().print("The schema is up to date.")


@app.command()
def reconcile() -> None:
    """Set right the counters in Redis that have drifted from PostgreSQL. The service does so by itself, too."""
    settings = load_settings()

    async def run() -> list[Drift]:
        async with open_reconciler(settings) as reconcile_once:
            return await reconcile_once()

    drifts = asyncio.run(run())
    console = Console(highlight=False, soft_wrap=True)
    for drift in drifts:
        console.print(
            f"{drift.coupon_name}: the counter said {drift.counted}, PostgreSQL says {drift.remaining_amount}"
        )
    console.print(f"{len(drifts)} counters had drifted; they are learnt anew.")


@coupon_app.command("create")
def create_coupon(
    name: CouponName,
    amount: Annotated[int, typer.Option(min=1, max=domain.MAX_AMOUNT, help="Units to give away.")],
    strategy: Annotated[
        StrategyName, typer.Option(help="How its claims are admitted; the README says which to choose.")
    ] = StrategyName.REDLOCK,
) -> None:
    """Create a coupon."""
    if len(name) > domain.MAX_NAME_LENGTH or not re.fullmatch(domain.COUPON_NAME_PATTERN, name):
        raise typer.BadParameter(
            f"use letters, digits and . _ - (at most {domain.MAX_NAME_LENGTH}, not dots alone)", param_hint="NAME"
        )

    async def create() -> Coupon | CouponExists:
        async with open_storage(load_database_settings()) as storage:
            return await storage.create_coupon(name, amount, strategy)

    if isinstance(asyncio.run(create()), CouponExists):
        raise ClaimsvcError(f"there is a coupon {name} already; nothing was changed")
    Console().print(f"Created {name} with {amount} units.", highlight=False, soft_wrap=True)


@coupon_app.command("list")
def list_coupons(
    search: Annotated[str | None, typer.Option(help="Only names that contain this, in any case.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many at most.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List coupons by name."""

    async def read() -> list[Coupon]:
        found: list[Coupon] = []
        async with open_storage(load_database_settings()) as storage:
            while len(found) < limit:
                size = min(limit - len(found), 1000)
                page = await storage.coupons(search=search, after=found[-1].name if found else None, limit=size)
                found.extend(page)
                if len(page) < size:
                    break
        return found

    coupons = asyncio.run(read())
    if as_json:
        _print_json([asdict(coupon) for coupon in coupons])
    else:
        _print_table(coupons)


@coupon_app.command("show")
def show_coupon(name: CouponName, as_json: AsJson = False) -> None:
    """Show a coupon and who has claimed it, oldest first (the first 1000)."""

    async def read() -> CouponDetail | None:
        async with open_storage(load_database_settings()) as storage:
            return await storage.coupon(name, claimants=_MOST_CLAIMANTS)

    detail = asyncio.run(read())
    if detail is None:
        raise ClaimsvcError(f"there is no coupon {name}")
    if as_json:
        _print_json({**asdict(detail.coupon), "claimed_by": detail.claimed_by})
        return
    _print_table([detail.coupon])
    for user_id in detail.claimed_by:
        Console().print(user_id, markup=False, highlight=False, soft_wrap=True)


@key_app.command("create")
def create_key() -> None:
    """Make an admin key. It is shown once; the service is given its digest only."""
    key = secrets.token_urlsafe(32)
    digest = hashlib.sha256(key.encode()).hexdigest()
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"The key, for whoever creates coupons (shown this once):\n  {key}")
    console.print(f"Its digest, for the service (several are separated by commas):\n  CLAIMSVC_ADMIN_KEYS={digest}")


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2, default=str))


def _print_table(coupons: list[Coupon]) -> None:
    table = Table("name", "strategy", "created", box=None, pad_edge=False)
    for heading in ("amount", "remaining"):
        table.add_column(heading, justify="right")
    for coupon in coupons:
        made = coupon.created_at.strftime("%Y-%m-%d %H:%M:%S %Z")
        table.add_row(escape(coupon.name), coupon.strategy, made, str(coupon.amount), str(coupon.remaining_amount))
    Console().print(table)


if __name__ == "__main__":
    main()
