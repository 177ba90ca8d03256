"""`claimsvc locks`: who holds which lock, and giving one back by force."""

import asyncio
import re
import sys
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from claimsvc import domain
from claimsvc.application import locks as lock_cases
from claimsvc.bootstrap import open_lock_admin
from claimsvc.cli.terminal import (
    AsJson,
    CouponName,
    check_coupon_name,
    check_text,
    os_operator,
    print_json,
    print_table,
)
from claimsvc.config import load_settings
from claimsvc.domain import HeldLock, LockNotHeld, LockReleased, LocksSeen
from claimsvc.errors import ClaimsvcError
from claimsvc.http.resources.locks.schemas import locks_body

app = typer.Typer(help="Which locks are held now, by which instance; and giving one back by force.")


@app.callback(invoke_without_command=True)
def locks(context: typer.Context, as_json: AsJson = False) -> None:
    """Which locks are held now: by which instance, for how long, on which masters, and who waits."""
    if context.invoked_subcommand is not None:
        return
    settings = load_settings()

    async def look() -> LocksSeen:
        async with open_lock_admin(settings) as lock_admin:
            return await lock_cases.held(lock_admin, os_operator())

    seen = asyncio.run(look())
    if as_json:
        print_json(asdict(locks_body(seen)))
    else:
        _print_locks(seen)


@app.command("release")
def release_lock(
    name: CouponName,
    reason: Annotated[str, typer.Option(help="Why; the audit keeps it.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask whether to go on.")] = False,
) -> None:
    """Give a coupon's lock back for its holder, on all masters, and wake who waits for it.

    It is audited in PostgreSQL first, and not done without it. The holder goes on until it finds the lock lost; its
    claims are right all the same, because PostgreSQL decides them. A lock that nobody gives back expires by itself.
    """
    check_coupon_name(name)
    check_text(reason, "--reason")
    if len(reason) > domain.MAX_REASON_LENGTH or not re.fullmatch(domain.REASON_PATTERN, reason):
        raise typer.BadParameter(f"use 1 to {domain.MAX_REASON_LENGTH} characters on one line", param_hint="--reason")
    settings = load_settings()
    if not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter("not a terminal: pass --yes to confirm", param_hint="--yes")
        typer.confirm(f"Release the lock of {name} by force?", abort=True)

    async def release() -> LockReleased | LockNotHeld:
        async with open_lock_admin(settings) as lock_admin:
            return await lock_cases.release(lock_admin, os_operator(), name, reason)

    released = asyncio.run(release())
    if isinstance(released, LockNotHeld):
        raise ClaimsvcError(f"nobody holds the lock of {name}; nothing was released")
    console = Console(highlight=False, soft_wrap=True, markup=False)
    holders = " and ".join(holder or "an unknown instance" for holder in released.holders)
    console.print(f"Released {name}, which {holders} held, on {', '.join(released.released_on)}.")
    for master in released.not_reached:
        console.print(f"{master} could not be asked: the lock stays there until it expires.")
    if released.woke_another:
        console.print("The instance that has waited longest was woken.")


def _print_locks(seen: LocksSeen) -> None:
    console = Console(highlight=False)
    if seen.locks:
        table = Table(box=None, pad_edge=False)
        for heading in ("coupon", "holder"):
            table.add_column(heading, overflow="fold")
        for heading in ("held for", "masters", "life left on each"):
            table.add_column(heading, justify="right")
        table.add_column("waiting", overflow="fold")
        for lock in seen.locks:
            table.add_row(*map(escape, _row(lock, seen.masters)))
        print_table(table)
    else:
        console.print("No lock is held.")
    if not seen.is_complete:
        console.print("There are more; these are the first.")
    for master in seen.down:
        console.print(f"[yellow]{escape(master)} cannot be used; `claimsvc doctor` says more.[/]")


def _row(lock: HeldLock, masters: tuple[str, ...]) -> tuple[str, ...]:
    left = [f"{lock.ttl_seconds[name]:.1f}" if name in lock.ttl_seconds else "-" for name in masters]
    return (
        lock.coupon_name,
        (lock.holder or "?") + ("" if lock.is_held else " (no majority)"),
        f"{lock.held_seconds:.3f} s",
        f"{len(lock.ttl_seconds)} of {len(masters)}",
        f"{' '.join(left)} s",
        ", ".join(f"{each.instance} ({each.seconds:.1f} s)" for each in lock.waiting),
    )
