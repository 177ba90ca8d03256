"""Claims of tickets: who has lost the lease does nothing, and whoever has it writes the ticket's end with its claim."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from claimsvc.domain import (
    AlreadyClaimed,
    Attempt,
    Campaign,
    Claimed,
    ClaimOptions,
    ClaimOutcome,
    HoldContinued,
    LeaseLost,
    NotStarted,
    Paused,
    SoldOut,
    TicketLease,
    TooManyClaims,
    UnknownCoupon,
)
from claimsvc.domain.admission import CouponFacts, Facts, OwnClaim, TicketFacts, decide

NOW = datetime(2026, 11, 21, tzinfo=UTC)
LEASE = TicketLease("the-ticket", 7, "the-lease")
STARTED = TicketFacts(is_started=True, lease="the-lease")


def attempt(user_id: str = "ada", lease: TicketLease | None = LEASE, *, claim_id: str = "mine") -> Attempt:
    return Attempt(claim_id, "spring", user_id, ClaimOptions(ticket=lease))


def facts(ticket: TicketFacts | None = STARTED, *own: OwnClaim, amount: int = 1, **campaign: object) -> Facts:
    return Facts(
        {"spring": CouponFacts(amount, NOW, Campaign(**campaign))},  # type: ignore[arg-type]
        {("spring", "ada"): own},
        tickets={} if ticket is None else {LEASE.ticket_id: ticket},
    )


def outcome_of(read: Facts, *, in_doubt: bool = False) -> ClaimOutcome:
    """What an attempt results in that writes nothing."""
    effects = decide(read, [attempt()], in_doubt=in_doubt)
    assert effects.changes_nothing
    return effects.outcomes[0]


def test_the_claim_and_the_end_of_its_ticket_are_written_together() -> None:
    effects = decide(facts(), [attempt()])
    [outcome] = effects.outcomes
    assert isinstance(outcome, Claimed)
    assert [each.claim for each in effects.given] == [outcome.claim]
    assert effects.ticket_ends == [("spring", LEASE, outcome)]


def test_a_refusal_is_an_end_too() -> None:
    for read, kind in (
        (facts(amount=0), SoldOut),
        (facts(STARTED, OwnClaim("old", 1, NOW, None)), AlreadyClaimed),
        (replace(facts(), ended_claims={("spring", "ada"): 11}), TooManyClaims),
        (replace(facts(), coupons={}), UnknownCoupon),
    ):
        effects = decide(read, [attempt()])
        [(_, lease, end)] = effects.ticket_ends
        assert (lease, type(end)) == (LEASE, kind)
        assert not effects.given


def test_a_hold_that_is_confirmed_ends_the_ticket_with_its_claim() -> None:
    effects = decide(facts(STARTED, OwnClaim("held", 1, NOW, NOW + timedelta(minutes=1)), amount=0), [attempt()])
    [(_, _, end)] = effects.ticket_ends
    assert isinstance(end, HoldContinued)
    assert end.claim.id == "held"
    assert effects.confirmed == [end.claim]


def test_what_passes_is_no_end() -> None:
    assert outcome_of(facts(paused=True)) == Paused()
    assert isinstance(outcome_of(facts(starts_at=NOW + timedelta(seconds=1))), NotStarted)


def test_whoever_lost_the_lease_gives_nothing_however_the_ticket_stands() -> None:
    other = TicketFacts(is_started=True, lease="another's")
    for ticket in (None, other, TicketFacts(True, None), TicketFacts(False, None), replace(other, is_started=False)):
        assert outcome_of(facts(ticket)) == LeaseLost()
        assert outcome_of(facts(ticket), in_doubt=True) == LeaseLost()


def test_a_lease_is_good_for_one_claim_of_a_batch() -> None:
    effects = decide(facts(amount=5, per_user_limit=5), [attempt(), attempt(claim_id="doubled")])
    assert [type(each) for each in effects.outcomes] == [Claimed, LeaseLost]
    assert len(effects.given) == len(effects.ticket_ends) == 1


def test_after_a_commit_in_doubt_the_ticket_stays_as_it_ended() -> None:
    """A unit may have come back since it was refused, and another claim may fit beside the hold that was confirmed."""
    refused = replace(STARTED, is_started=False, refusal=SoldOut())
    assert outcome_of(facts(refused), in_doubt=True) == SoldOut()
    claimed = replace(STARTED, is_started=False, claim_id="mine")
    own = OwnClaim("mine", 1, NOW, None)
    read = facts(claimed, own, amount=1, per_user_limit=2)
    outcome = outcome_of(read, in_doubt=True)
    assert isinstance(outcome, Claimed)
    assert outcome.claim.id == "mine"
    confirmed = replace(claimed, claim_id="held")
    outcome = outcome_of(facts(confirmed, replace(own, id="held"), per_user_limit=2), in_doubt=True)
    assert isinstance(outcome, Claimed)
    assert outcome.claim.id == "held"
    assert outcome_of(facts(claimed), in_doubt=True) == LeaseLost()  # its claim has ended since


leases = st.sampled_from(["a", "b", "c"])
tickets = st.dictionaries(leases, st.builds(TicketFacts, st.booleans(), st.none() | leases), max_size=3)


@given(
    st.lists(st.tuples(st.sampled_from(["ada", "bob", "eve"]), st.none() | leases), max_size=8),
    tickets,
    st.integers(0, 3),
    st.booleans(),
)
def test_no_more_units_are_given_for_tickets_than_leases_hold_and_each_has_one_end(
    wanted: list[tuple[str, str | None]], known: dict[str, TicketFacts], amount: int, in_doubt: bool
) -> None:
    """The ticket of a lease has its name."""
    attempts = [
        attempt(user, None if token is None else TicketLease(token, 0, token), claim_id=f"claim-{number}")
        for number, (user, token) in enumerate(wanted)
    ]
    read = Facts({"spring": CouponFacts(amount, NOW, Campaign(per_user_limit=2))}, tickets=known)
    effects = decide(read, attempts, in_doubt=in_doubt)
    ended = [lease.token for _, lease, _ in effects.ticket_ends]
    assert len(set(ended)) == len(ended)
    assert all(known[token].is_started and known[token].lease == token for token in ended)
    given_to = {each.claim.id for each in effects.given}
    for each, outcome in zip(attempts, effects.outcomes, strict=True):
        token = each.options.ticket.token if each.options is not None and each.options.ticket is not None else None
        has_end = token is not None and (token, outcome) in [(one.token, end) for _, one, end in effects.ticket_ends]
        assert token is None or each.claim_id not in given_to or has_end
        assert token is None or has_end or isinstance(outcome, LeaseLost)
