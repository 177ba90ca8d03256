"""`claimsvc locks`: which instance holds which lock, and forced release."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from claimsvc import domain
from claimsvc.cli.running import run
from claimsvc.cli.terminal import (
    AsJson,
    CouponName,
    Yes,
    check_coupon_name,
    check_text,
    confirm,
    os_operator,
    print_json,
    print_table,
    refusal_error,
    say,
)
from claimsvc.cli.usage import must_be
from claimsvc.domain import HeldLock, LockNotHeld, LocksSeen

if TYPE_CHECKING:
    from claimsvc.config import Settings
    from claimsvc.ports import LockAdmin

_Result = TypeVar("_Result")

app = typer.Typer(help="List the locks that are held now, and by which instance; release a lock by force.")


@app.callback(invoke_without_command=True)
def locks(context: typer.Context, as_json: AsJson = False) -> None:
    """List the locks that are held now: by which instance, how long, on which masters, and which instances wait."""
    from claimsvc.application import locks as lock_cases

    if context.invoked_subcommand is not None:
        return
    seen = _on_masters(_settings(), lambda lock_admin: lock_cases.held(lock_admin, os_operator()))
    if as_json:
        # Imported here, because help must not wait for pydantic.
        from claimsvc.representations.locks import locks_body

        print_json(locks_body(seen))
    else:
        _print_locks(seen)


@app.command("release")
def release_lock(
    name: CouponName,
    reason: Annotated[str, typer.Option(help="Why; the audit records it.")],
    yes: Yes = False,
) -> None:
    """Release a coupon's lock by force on all masters, and wake the next instance that waits for it.

    The release is recorded in the audit first, so it needs PostgreSQL. The holder continues until it notices that it
    lost the lock; its claims are still correct, because PostgreSQL decides them. A lock that is not released expires.
    """
    from claimsvc.application import locks as lock_cases

    check_coupon_name(name)
    check_text(reason, "--reason")
    if len(reason) > domain.MAX_REASON_LENGTH or not domain.is_visible_line(reason):
        raise must_be(domain.REASON_RULE, "--reason", "web-1 hangs")
    settings = _settings()
    confirm(f"Release the lock of {name} by force?", yes)
    released = _on_masters(settings, lambda lock_admin: lock_cases.release(lock_admin, os_operator(), name, reason))
    if isinstance(released, LockNotHeld):
        raise refusal_error(released, f"the lock of {name} is not held; nothing was released")
    holders = " and ".join(holder or "an unknown instance" for holder in released.holders)
    say(f"Released {name}, held by {holders}, on {', '.join(released.released_on)}.")
    for master in released.not_reached:
        say(f"{master} did not respond: the lock stays there until it expires.")
    if released.woke_another:
        say("The instance that has waited longest was woken.")


def _settings() -> "Settings":
    from claimsvc.config import load_settings  # help must not wait for it

    return load_settings()


def _on_masters(settings: "Settings", work: Callable[["LockAdmin"], Awaitable[_Result]]) -> _Result:
    # Imported here, because help must not wait for the clients of both databases.
    from claimsvc.bootstrap import open_lock_admin

    async def with_locks() -> _Result:
        async with open_lock_admin(settings) as lock_admin:
            return await work(lock_admin)

    return run(with_locks())


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
        console.print("There are more locks; these are the first.")
    for master in seen.down:
        why = f": {seen.troubles[master]}" if master in seen.troubles else ""
        say(f"{master} cannot be used{why}; run `claimsvc doctor` for details.")


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
