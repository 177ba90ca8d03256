"""The claim of a ticket: its end is written in the claim's transaction, so both are there or none."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest

from claimsvc.domain import (
    AlreadyClaimed,
    AttributeRule,
    AuditEntry,
    Claimed,
    ClaimOptions,
    EligibilityRules,
    LeaseLost,
    NewCode,
    NotEligible,
    Queued,
    SoldOut,
    Source,
    StartedTicket,
    TicketDiscarded,
    TicketNotDead,
    TicketReplaced,
    TicketRequeued,
    TicketState,
    UnknownTicket,
)
from claimsvc.ports import AllClaimed, FailedTry, HandedBatch
from claimsvc.postgres import Repositories
from claimsvc.postgres.claiming.dispatcher import Dispatcher
from claimsvc.postgres.claiming.full_path import FullPath
from tests.support.databases import administrate
from tests.support.storage import attempts, broken_sums, entries_about, kinds, open_storage
from tests.support.tickets import (
    attempt_of,
    broken_queues,
    claim,
    create_queued,
    dispatch,
    joined,
    keyed,
    started,
    state,
    wish,
)

ENTRY = AuditEntry("key:operator", "ticket.requeue", "ticket", "some", reason="mended")


async def end_of(storage: Repositories, ticket: StartedTicket) -> tuple[TicketState, object, object]:
    found = await storage.tickets.ticket(ticket.lease.ticket_id)
    assert found is not None
    return found.state, found.claim, found.refusal


@pytest.mark.usefixtures("sold_first")
async def test_each_ticket_ends_with_what_its_claim_resulted_in(storage: Repositories, database_url: str) -> None:
    rules = EligibilityRules((AttributeRule("age", Source.REQUEST, at_least=18),))
    await create_queued(storage, 3, rules=rules)
    old = ClaimOptions(attributes={"age": 20})
    young = ClaimOptions(attributes={"age": 17})
    wishes = [wish("ada", old), wish("bob", young), wish("eve", replace(old, hold_seconds=60))]
    assert kinds(await storage.tickets.join("spring", wishes)) == ["Queued"] * 3
    begun = await started(storage)
    # Beside others without a ticket, in one batch.
    others = [replace(each, options=old) for each in attempts("zoe")]
    outcomes = await storage.admission.admit([*map(attempt_of, begun), *others])
    assert kinds(outcomes) == ["Claimed", "NotEligible", "Claimed", "Claimed"]
    ada, bob, eve = [await end_of(storage, each) for each in begun]
    assert isinstance(outcomes[0], Claimed)
    assert isinstance(outcomes[2], Claimed)
    assert ada == (TicketState.CLAIMED, outcomes[0].claim, None)
    assert bob == (TicketState.REFUSED, None, outcomes[1])
    assert isinstance(bob[2], NotEligible)
    assert eve == (TicketState.CLAIMED, outcomes[2].claim, None)
    assert outcomes[2].claim.expires_at is not None
    assert broken_sums(database_url) == []


async def codes(*given: str) -> AsyncIterator[Sequence[NewCode]]:
    yield [NewCode(row, code) for row, code in enumerate(given, 1)]


async def test_a_ticket_shows_the_code_of_its_claim(storage: Repositories) -> None:
    await create_queued(storage, 1)
    await storage.codes.add("spring", codes("A-1"), AuditEntry("test", "codes.add", "coupon", "spring"), atomic=True)
    await joined(storage, "ada")
    [ticket] = await started(storage)
    [outcome] = await claim(storage, ticket)
    assert outcome.claim.code == "A-1"
    assert await end_of(storage, ticket) == (TicketState.CLAIMED, outcome.claim, None)


async def test_whose_unit_was_taken_by_another_way_is_refused(storage: Repositories, database_url: str) -> None:
    await create_queued(storage, 2)
    await joined(storage, "ada", "bob")
    begun = await started(storage)
    [taken] = await storage.admission.admit(attempts("ada"))
    assert isinstance(taken, Claimed)
    await storage.admission.admit(attempts("zoe"))
    assert await claim(storage, *begun) == [AlreadyClaimed(taken.claim), SoldOut()]
    assert [(await end_of(storage, each))[2] for each in begun] == [AlreadyClaimed(taken.claim), SoldOut()]
    assert await storage.tickets.due_in() is None or broken_queues(database_url) == []


async def test_a_claim_that_fails_ends_no_ticket_and_an_end_that_fails_makes_no_claim(
    storage: Repositories, database_url: str
) -> None:
    await create_queued(storage)
    await joined(storage, "ada")
    [ticket] = await started(storage)
    administrate(database_url, "ALTER TABLE tickets ADD CONSTRAINT no_end CHECK (state <> 'claimed')")
    [failed] = await claim(storage, ticket)
    assert isinstance(failed, Exception)
    assert administrate(database_url, "SELECT count(*) FROM user_claims") == [(0,)]
    assert await state(storage, ticket) == "started"
    administrate(database_url, "ALTER TABLE tickets DROP CONSTRAINT no_end")
    assert kinds([*await claim(storage, ticket)]) == ["Claimed"]
    assert broken_sums(database_url) == []


async def test_whichever_of_two_lease_holders_claims_one_unit_is_given(database_url: str) -> None:
    """A dispatcher that was paused past its lease claims beside the next one, at the same moment."""
    async with open_storage(database_url) as (one, _), open_storage(database_url) as (other, _):
        await create_queued(one, per_user_limit=5)
        for _ in range(5):
            await joined(one, "ada", "bob", "eve")
            first = await started(one)
            administrate(database_url, "UPDATE tickets SET leased_until = now() WHERE leased_until IS NOT NULL")
            outcomes, again = await asyncio.gather(claim(one, *first), dispatch(other, "spring"))
            more = await claim(other, *again.started)
            made = [each for each in (*outcomes, *more) if isinstance(each, Claimed)]
            assert {each.claim.user_id for each in made} == {"ada", "bob", "eve"}
            assert len(made) == 3
            assert all(isinstance(each, Claimed | LeaseLost) for each in (*outcomes, *more))
    assert administrate(database_url, "SELECT state, count(*) FROM tickets GROUP BY 1") == [("claimed", 15)]
    assert administrate(database_url, "SELECT count(*) FROM user_claims") == [(15,)]
    assert broken_queues(database_url) == []


async def test_an_outcome_after_a_commit_in_doubt_is_that_of_the_first_try(
    storage: Repositories, database_url: str
) -> None:
    """Between the commit and the next try a unit comes back, and others claim."""
    await create_queued(storage, 1, per_user_limit=2)
    await joined(storage, "ada")
    [ticket] = await started(storage)
    attempt = attempt_of(ticket)
    admission = storage.admission
    assert isinstance(admission, Dispatcher)
    [zoe] = await storage.admission.admit(attempts("zoe"))
    assert isinstance(zoe, Claimed)
    claim_id = zoe.claim.id
    database = admission._full_path._database

    class LosesTheAnswer:
        async def run_transaction(self, work: object, **_: object) -> object:
            await database.run_transaction(work)  # type: ignore[arg-type]
            await storage.claims.cancel(claim_id, AuditEntry("claimant", "claim.cancel", "claim", claim_id))
            return await database.run_transaction(lambda driver, _: work(driver, True))  # type: ignore[operator]

    path = FullPath(LosesTheAnswer())  # type: ignore[arg-type]
    assert await path.admit([attempt]) == [SoldOut()]
    assert await end_of(storage, ticket) == (TicketState.REFUSED, None, SoldOut())
    assert administrate(database_url, "SELECT remaining_amount FROM coupons") == [(1,)]


async def test_tickets_in_a_handed_batch_end_by_whoever_decides_it(storage: Repositories, database_url: str) -> None:
    await create_queued(storage)
    await joined(storage, "ada", "bob")
    begun = await started(storage)
    made = [attempt_of(each) for each in begun]
    [own] = attempts("own")
    batch = HandedBatch(
        attempts("x")[0].claim_id,
        "spring",
        2,
        "\n".join(each.claim_id for each in made),
        "ada\nbob",
        [each.options for each in made],
    )
    admission = storage.admission
    assert isinstance(admission, Dispatcher)
    outcomes, [handed] = await admission.admit_handed([own], [batch])
    assert kinds(outcomes) == ["Claimed"]
    assert handed is not None
    assert isinstance(handed, AllClaimed)
    # Doubled, and recalled: each ticket stays as it ended.
    _, [doubled] = await admission.admit_handed(attempts("another"), [batch])
    assert doubled is None
    recalled = await admission.recall(batch)
    assert kinds(recalled) == ["Claimed"] * 2
    assert [await state(storage, each) for each in begun] == ["claimed"] * 2
    assert administrate(database_url, "SELECT count(*) FROM user_claims") == [(4,)]


async def test_the_key_of_a_request_is_that_of_its_ticket_and_not_of_its_claim(storage: Repositories) -> None:
    await create_queued(storage)
    await storage.tickets.join("spring", [wish("ada", keyed("k"))])
    [ticket] = await started(storage)
    assert ticket.options.idempotency_key is None
    assert kinds([*await claim(storage, ticket)]) == ["Claimed"]
    again = await storage.tickets.join("spring", [wish("ada", keyed("k"))])
    assert kinds(again) == ["Replayed"]


async def test_a_dead_letter_is_tried_again_or_given_up_and_both_are_audited(
    storage: Repositories, database_url: str
) -> None:
    await create_queued(storage)
    await joined(storage, "ada", "bob")
    ada, bob = await started(storage)
    for each in (ada, bob):
        assert await storage.tickets.requeue(each.lease.ticket_id, ENTRY) == TicketNotDead()
        assert await storage.tickets.discard(each.lease.ticket_id, ENTRY) == TicketNotDead()
    await storage.tickets.put_back([FailedTry(ada, None), FailedTry(bob, None)])
    assert (await storage.tickets.tickets("spring", states=[TicketState.DEAD], after=None, limit=9))[0].tries == 1
    unknown = wish("").ticket_id
    assert await storage.tickets.requeue(unknown, ENTRY) == UnknownTicket()
    assert await storage.tickets.discard(unknown, ENTRY) == UnknownTicket()

    entry = replace(ENTRY, subject=ada.lease.ticket_id)
    requeued = await storage.tickets.requeue(ada.lease.ticket_id, entry)
    assert isinstance(requeued, TicketRequeued)
    assert (requeued.ticket.state, requeued.ticket.position, requeued.ticket.tries) == (TicketState.STARTED, 0, 0)
    assert await storage.tickets.requeue(ada.lease.ticket_id, entry) == TicketNotDead()
    [again] = await started(storage)
    assert (again.user_id, again.tries) == ("ada", 1)
    assert kinds([*await claim(storage, ada, again)]) == ["LeaseLost", "Claimed"]

    entry = replace(entry, action="ticket.discard", subject=bob.lease.ticket_id)
    discarded = await storage.tickets.discard(bob.lease.ticket_id, entry)
    assert isinstance(discarded, TicketDiscarded)
    assert discarded.ticket.state is TicketState.LEFT
    assert await storage.tickets.discard(bob.lease.ticket_id, entry) == TicketNotDead()
    assert kinds([*await claim(storage, bob)]) == ["LeaseLost"]
    assert await storage.tickets.dead_letters(after=None, limit=9) == []
    for ticket, action in ((ada, "ticket.requeue"), (bob, "ticket.discard")):
        [audited] = await entries_about(storage, "ticket", ticket.lease.ticket_id)
        assert (audited.action, audited.actor, audited.reason) == (action, "key:operator", "mended")
    assert broken_queues(database_url) == []


async def test_a_user_who_waits_again_keeps_that_ticket_and_the_dead_one_stays_dead(
    storage: Repositories, database_url: str
) -> None:
    await create_queued(storage)
    await joined(storage, "ada")
    [ticket] = await started(storage)
    await storage.tickets.put_back([FailedTry(ticket, None)])
    [new] = await joined(storage, "ada")
    assert new.id != ticket.lease.ticket_id
    assert await storage.tickets.requeue(ticket.lease.ticket_id, ENTRY) == TicketReplaced()
    assert await state(storage, ticket) == "dead"
    await storage.tickets.leave(new.id)
    key = keyed("again").idempotency_key
    requeued = await storage.tickets.requeue(ticket.lease.ticket_id, ENTRY, key)
    assert isinstance(requeued, TicketRequeued)
    assert kinds([await storage.tickets.requeue(ticket.lease.ticket_id, ENTRY, key)]) == ["Replayed"]
    # Now it is the one that the user has.
    [same] = await joined(storage, "ada")
    assert same.id == ticket.lease.ticket_id


async def test_whoever_joins_while_a_dead_letter_is_requeued_has_one_ticket(database_url: str) -> None:
    async with open_storage(database_url) as (one, _), open_storage(database_url) as (other, _):
        await create_queued(one)
        for number in range(10):
            user = f"user-{number}"
            await joined(one, user)
            [ticket] = await started(one)
            await one.tickets.put_back([FailedTry(ticket, None)])
            found, [outcome] = await asyncio.gather(
                other.tickets.requeue(ticket.lease.ticket_id, ENTRY), one.tickets.join("spring", [wish(user)])
            )
            assert isinstance(outcome, Queued)
            assert isinstance(found, TicketRequeued) == (outcome.ticket.id == ticket.lease.ticket_id)
            await claim(one, *await started(one, "spring"))
    assert administrate(database_url, "SELECT count(*) FROM user_claims") == [(10,)]
    assert broken_queues(database_url) == []
