"""The commands of `claimsvc`: one module for each group. Each reads its settings, asks one room, and prints."""

import typer

from claimsvc import logs
from claimsvc.cli import audit, claims, codes, coupons, doctor, keys, lists, locks, maintenance, serving, users

_EPILOG = (
    "Settings are CLAIMSVC_* variables; the README lists them. Exit status: 0 done, 1 failed, 2 wrong usage, "
    "78 wrong settings, 130 interrupted."
)

app = typer.Typer(
    help="Claims limited-stock coupons: many at once, each exactly once.",
    epilog=_EPILOG,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def _configure_logs() -> None:
    # What is printed is for whoever has asked, or a program: lines of the log would be in the way. `serve` says more.
    logs.configure("error", "auto")


app.command()(serving.dev)
app.command()(serving.serve)
app.command(hidden=True)(serving.worker)
app.command()(maintenance.migrate)
app.command()(maintenance.reconcile)
app.command()(maintenance.sweep)
app.command()(maintenance.purge)
app.command()(doctor.doctor)
app.command()(audit.audit)
app.add_typer(coupons.app, name="coupon")
app.add_typer(claims.app, name="claims")
app.add_typer(codes.app, name="codes")
app.add_typer(keys.app, name="key")
app.add_typer(locks.app, name="locks")
app.add_typer(users.app, name="user")
app.add_typer(lists.app, name="lists")

__all__ = ["app"]
