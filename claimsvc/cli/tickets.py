"""`claimsvc tickets` and `claimsvc dead-letters`: queues and the tickets in them, directly in the database."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated
from uuid import UUID

import typer
from rich.markup import escape
from rich.table import Table

from claimsvc import domain
from claimsvc.cli.running import on_storage
from claimsvc.cli.terminal import (
    AsJson,
    CouponName,
    Reason,
    Yes,
    check_coupon_name,
    check_reason,
    confirm,
    os_operator,
    print_json,
    print_table,
    refusal_error,
    say,
)
from claimsvc.domain import TicketState
from claimsvc.domain.outcomes import problem_of

app = typer.Typer(
    help="List the queues and the tickets in them, pause a queue, and requeue or discard a ticket that is dead.",
    no_args_is_help=True,
)

TicketId = Annotated[str, typer.Argument(help="The ticket's id, a UUID.")]
Limit = Annotated[int, typer.Option(min=1, max=100_000, help="The largest number of tickets to list.")]


@app.command("queues")
def list_queues(as_json: AsJson = False) -> None:
    """List the queues in which tickets wait, are started or are dead letters."""
    from claimsvc.application import queues

    found = on_storage(lambda storage: queues.statuses(storage.tickets, os_operator()))
    if as_json:
        # Imported here, because help must not wait for pydantic.
        from claimsvc.representations.queue_status import queues_body

        print_json(queues_body(found))
        return
    if not found:
        say("No queue is in use.")
        return
    headings = ("coupon", "waiting", "started", "dead", "pace", "first joined", "stopped", "started by")
    _print_rows(
        headings,
        (
            (
                each.coupon_name,
                str(each.waiting),
                str(each.started),
                str(each.dead),
                f"{each.pace:.1f}/s",
                _time(each.oldest_joined_at),
                each.stopped or "",
                each.dispatcher or "",
            )
            for each in found
        ),
    )


@app.command("list")
def list_tickets(
    name: CouponName,
    states: Annotated[
        list[TicketState] | None, typer.Option("--state", help="Only tickets in this state; may be repeated.")
    ] = None,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """List the tickets of a coupon in the order in which they joined; ended ones for a day."""
    from claimsvc.application import queues

    check_coupon_name(name)
    wanted = frozenset(states or TicketState)
    found = on_storage(
        lambda storage: queues.of_coupon(
            storage.tickets, storage.coupons, os_operator(), name, states=wanted, after=None, limit=limit
        )
    )
    if isinstance(found, domain.UnknownCoupon):
        raise refusal_error(found, f"there is no coupon {name}")
    if as_json:
        from claimsvc.representations.queue_status import listed_ticket_body

        print_json([listed_ticket_body(each) for each in found])
        return
    if not found:
        say("There is no such ticket.")
        return
    _print_rows(
        ("joined at", "user", "state", "tries", "ticket"),
        ((_time(each.joined_at), each.user_id, each.state, str(each.tries), each.id) for each in found),
    )


@app.command("show")
def show_ticket(ticket_id: TicketId, as_json: AsJson = False) -> None:
    """Show a ticket: its place in the queue, or what became of it."""
    from claimsvc.application import queues

    checked = _checked(ticket_id)
    found = on_storage(lambda storage: queues.ticket(storage.tickets, os_operator(), checked))
    if isinstance(found, domain.UnknownTicket):
        raise refusal_error(found, f"there is no ticket {checked}, or it ended more than a day ago")
    if as_json:
        from claimsvc.representations.queue_status import operator_ticket_body

        print_json(operator_ticket_body(found))
    else:
        _print_ticket(found)


@app.command("requeue")
def requeue_ticket(ticket_id: TicketId, reason: Reason) -> None:
    """Try the claim of a ticket that is a dead letter again, at once. Audited."""
    from claimsvc.application import queues

    checked = _checked(ticket_id)
    check_reason(reason)
    done = on_storage(lambda storage: queues.requeue(storage.tickets, os_operator(), checked, reason))
    if not isinstance(done, domain.TicketRequeued):
        raise _refused(done, checked)
    say(f"{checked} of {done.ticket.coupon_name} is tried again.")


@app.command("discard")
def discard_ticket(ticket_id: TicketId, reason: Reason, yes: Yes = False) -> None:
    """Give a ticket that is a dead letter up for good. Its user can claim again. Audited."""
    from claimsvc.application import queues

    checked = _checked(ticket_id)
    check_reason(reason)
    confirm(f"Discard {checked} for good?", yes)
    done = on_storage(lambda storage: queues.discard(storage.tickets, os_operator(), checked, reason))
    if not isinstance(done, domain.TicketDiscarded):
        raise _refused(done, checked)
    say(f"{checked} of {done.ticket.coupon_name} is discarded.")


@app.command("pause")
def pause_queue(name: CouponName, reason: Reason) -> None:
    """Stop starting the tickets of a coupon. Users can still join its queue. Audited."""
    _pause(name, reason, paused=True)


@app.command("resume")
def resume_queue(name: CouponName, reason: Reason) -> None:
    """Start the tickets of a coupon again. Audited."""
    _pause(name, reason, paused=False)


def dead_letters(limit: Limit = 100, as_json: AsJson = False) -> None:
    """List what the service failed too often to do, oldest first: tickets, to be requeued or discarded."""
    from claimsvc.application import queues

    found = on_storage(lambda storage: queues.dead_letters(storage.tickets, os_operator(), after=None, limit=limit))
    if as_json:
        from claimsvc.representations.queue_status import dead_letter_body

        print_json([dead_letter_body(each) for each in found])
        return
    if not found:
        say("There are no dead letters.")
        return
    _print_rows(
        ("dead since", "kind", "coupon", "user", "tries", "id"),
        ((_time(each.ended_at), "ticket", each.coupon_name, each.user_id, str(each.tries), each.id) for each in found),
    )
    say('Try one again with `claimsvc tickets requeue ID --reason "..."`.')


def _pause(name: str, reason: str, *, paused: bool) -> None:
    from claimsvc.application import queues

    check_coupon_name(name)
    check_reason(reason)
    done = on_storage(lambda storage: queues.pause(storage.tickets, os_operator(), name, reason, paused=paused))
    if not isinstance(done, domain.QueueChanged):
        raise refusal_error(done, f"there is no coupon {name}")
    say(f"The queue of {name} is {'paused' if paused else 'not paused'}; {done.status.waiting} wait.")


def _refused(outcome: domain.Outcome, ticket_id: str) -> Exception:
    if isinstance(outcome, domain.TicketNotDead):
        return refusal_error(outcome, f"{ticket_id} is not a dead letter")
    if isinstance(outcome, domain.TicketReplaced):
        return refusal_error(outcome, f"the user of {ticket_id} waits again; discard it")
    return refusal_error(outcome, f"there is no ticket {ticket_id}, or it ended more than a day ago")


def _checked(ticket_id: str) -> str:
    try:
        return str(UUID(ticket_id))
    except ValueError:
        raise typer.BadParameter(
            "must be a UUID, such as 019b2c5e-7a31-7c42-9f0e-2d4b8a6c1e90", param_hint="TICKET_ID"
        ) from None


def _print_ticket(ticket: domain.Ticket) -> None:
    say(f"{ticket.id} of {ticket.coupon_name}: {ticket.state}")
    refusal = None if ticket.refusal is None else problem_of(ticket.refusal)
    for name, value in (
        ("user_id", ticket.user_id),
        ("position", ticket.position),
        ("eta_seconds", None if ticket.eta_seconds is None else round(ticket.eta_seconds, 1)),
        ("stopped", ticket.stopped),
        ("tries", ticket.tries),
        ("joined_at", ticket.joined_at),
        ("started_at", ticket.started_at),
        ("ended_at", ticket.ended_at),
        ("claim", None if ticket.claim is None else ticket.claim.id),
        ("refused", None if refusal is None else refusal.slug),
    ):
        if value is not None:
            say(f"  {name}: {value}")


def _time(time: datetime | None) -> str:
    return "" if time is None else f"{time:%Y-%m-%d %H:%M:%S %Z}"


def _print_rows(headings: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    print_table(table)
