"""Queues as operators see them: what is asked of the store, and what the audit is told."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

from claimsvc import domain
from claimsvc.application import queues

OPERATOR = domain.operator("os-user:op@host")
AT = datetime(2027, 1, 1, tzinfo=UTC)
TICKET = domain.Ticket("t-1", "known", "kim", domain.TicketState.DEAD, AT, tries=8)


def status(coupon_name: str) -> domain.QueueStatus:
    return domain.QueueStatus(coupon_name, domain.USUAL_QUEUE, 1, 0, 0, 0.0, None, False, AT, None, None)


class Kept:
    """Notes what reaches the port."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    async def statuses(self) -> list[domain.QueueStatus]:
        return [status("spring"), status("autumn")]

    async def tickets(self, coupon_name: str, **_: Any) -> list[domain.Ticket]:
        return [TICKET] if coupon_name == "known" else []

    async def stock(self, names: list[str]) -> list[Any]:
        return [SimpleNamespace(name=name) for name in names if name in {"known", "empty"}]

    async def pause(self, name: str, entry: domain.AuditEntry, *, paused: bool, idempotency_key: Any) -> Any:
        self.asked.append((entry.actor, entry.action, entry.subject_type, entry.subject, entry.reason, paused))
        return domain.QueueChanged(status(name))

    async def requeue(self, ticket_id: str, entry: domain.AuditEntry, idempotency_key: Any) -> Any:
        self.asked.append((entry.actor, entry.action, entry.subject_type, entry.subject, entry.reason, ticket_id))
        return domain.TicketRequeued(TICKET)

    async def discard(self, ticket_id: str, entry: domain.AuditEntry) -> Any:
        self.asked.append((entry.actor, entry.action, entry.subject_type, entry.subject, entry.reason, ticket_id))
        return domain.TicketDiscarded(TICKET)


async def test_queues_are_listed_by_coupon() -> None:
    assert [each.coupon_name for each in await queues.statuses(cast("Any", Kept()), OPERATOR)] == ["autumn", "spring"]


async def test_a_coupon_without_tickets_is_told_from_one_that_does_not_exist() -> None:
    kept = cast("Any", Kept())
    found = {
        name: await queues.of_coupon(kept, kept, OPERATOR, name, states=(), after=None, limit=1)
        for name in ("known", "empty", "unknown")
    }
    assert found == {"known": [TICKET], "empty": [], "unknown": domain.UnknownCoupon()}


async def test_the_audit_is_told_who_did_what_to_which_queue_or_ticket_and_why() -> None:
    kept = Kept()
    store = cast("Any", kept)
    await queues.pause(store, OPERATOR, "known", "the shop is down")
    await queues.pause(store, OPERATOR, "known", "it is up again", paused=False)
    await queues.requeue(store, OPERATOR, "T-1", "PostgreSQL is back")
    await queues.discard(store, OPERATOR, "T-1", "too late")
    assert kept.asked == [
        (OPERATOR.name, "queue.pause", "coupon", "known", "the shop is down", True),
        (OPERATOR.name, "queue.resume", "coupon", "known", "it is up again", False),
        (OPERATOR.name, "ticket.requeue", "ticket", "t-1", "PostgreSQL is back", "T-1"),
        (OPERATOR.name, "ticket.discard", "ticket", "t-1", "too late", "T-1"),
    ]
