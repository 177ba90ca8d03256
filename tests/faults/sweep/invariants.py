"""What has to hold after every run: the answers agree with PostgreSQL, and nothing is left behind.

The numbers are those of the project's invariants: I1 no more claims than units, I2 the count of what is left, I3 one
claim per user, I4 a 201 stays, I5 no claim without an attempt and none after a refusal, I9 refusals are true, I10
counters, I8 a unit comes back once, I11 and I12 nothing held, borrowed or running, I13 claims succeed again.
"""

from collections.abc import Mapping, Sequence

from tests.faults.sweep.claims import Act, Answer, Claimant
from tests.faults.sweep.records import Stock, TicketOnRecord, users_of

_UNDECIDED = {(503, "lock-busy"), (503, "unavailable"), (409, "key-in-flight")}
# 200 is a hold that was made before, and is asked for again.
_CLAIMED = {200, 201}


def violations_on_record(stocks: Mapping[str, Stock], claimants: Sequence[Claimant]) -> list[str]:
    """What is wrong with the records, whatever was answered."""
    wrong: list[str] = []
    for name, stock in stocks.items():
        if stock.taken > stock.amount:
            wrong.append(f"I1: {stock.taken} claims on {stock.amount} units of {name}")
        if stock.remaining != stock.amount - stock.taken:
            wrong.append(f"I2: {stock.remaining} of {stock.amount} units left after {stock.taken} claims of {name}")
        wrong += [f"I3: {user} holds {len(ids)} claims of {name}" for user, ids in stock.claims.items() if len(ids) > 1]
        if strangers := stock.claims.keys() - users_of(name, claimants):
            wrong.append(f"I5: {sorted(strangers)} hold {name} and never asked")
    return wrong


def violations_of_first_answers(
    stocks: Mapping[str, Stock], told: Mapping[Claimant, Answer], *, answer_seconds: float
) -> list[str]:
    """What is wrong with the answers to claims that nobody had made before."""
    wrong: list[str] = []
    for claimant, answer in told.items():
        who = f"{claimant.user_id} on {claimant.coupon_name} was told {answer}"
        stock = stocks[claimant.coupon_name]
        held = stock.claims.get(claimant.user_id, [])
        if answer.seconds > answer_seconds:
            wrong.append(f"{who} after {answer.seconds:.2f} s, later than {answer_seconds:.2f} s")
        if not answer.status or (answer.status, answer.problem) in _UNDECIDED:
            continue
        if answer.status in _CLAIMED:
            if answer.claim_id not in held:
                wrong.append(f"I4: {who}, and has {held or 'nothing'}")
        elif answer.problem == "sold-out":
            if held:
                wrong.append(f"I5: {who}, and holds {held}")
            if stock.remaining:
                wrong.append(f"I9: {who} with {stock.remaining} units left")
        else:
            wrong.append(f"I9: {who}")
    return wrong


def violations_of_answers_again(
    stocks: Mapping[str, Stock], first: Mapping[Claimant, Answer], again: Mapping[Claimant, Answer]
) -> list[str]:
    """What is wrong when all have asked again, until they were told something: nobody is left without his due."""
    wrong: list[str] = []
    for claimant, answer in again.items():
        who = f"{claimant.user_id} on {claimant.coupon_name}, told {first[claimant]} first, was then told {answer}"
        stock = stocks[claimant.coupon_name]
        held = stock.claims.get(claimant.user_id, [])
        if answer.status in _CLAIMED or answer.problem == "already-claimed":
            if [answer.claim_id] != held:
                wrong.append(f"I4: {who} with claim {answer.claim_id}, and has {held}")
            if first[claimant].status == 201 and first[claimant].claim_id != answer.claim_id:
                wrong.append(f"I4: {who}, and lost its first claim")
            if answer.status == 201 and first[claimant].status == 201 and not answer.is_replayed:
                wrong.append(f"I3: {who}")
        elif answer.problem != "sold-out" or held or stock.remaining:
            wrong.append(f"I13: {who}, holding {held or 'nothing'} with {stock.remaining} units left")
    for name, stock in stocks.items():
        due = min(stock.amount, len(users_of(name, list(again))))
        if stock.taken != due:
            wrong.append(f"I13: {stock.taken} claims of {name} in the end, not {due}")
    return wrong


def violations_of_transitions(
    stocks: Mapping[str, Stock], told: Mapping[Claimant, Answer], act: Act, *, in_the_end: bool
) -> list[str]:
    """What is wrong with claims that were to be confirmed or cancelled: whoever was told so has it so, by then all."""
    wrong: list[str] = []
    for claimant, answer in told.items():
        who = f"{claimant.user_id} on {claimant.coupon_name} was told {answer}"
        stock = stocks[claimant.coupon_name]
        held = stock.claims.get(claimant.user_id, [])
        if not is_decided(answer):
            wrong += [f"I13: {who}"] if in_the_end else []
        elif answer.status != 200:
            wrong.append(f"I9: {who}")
        elif act is Act.CANCEL and held:
            wrong.append(f"I8: {who}, and still has {held}")
        elif act is Act.CONFIRM and (held != [answer.claim_id] or answer.claim_id in stock.held):
            wrong.append(f"I4: {who}, and has {held}, of which {sorted(stock.held)} are only held")
    return wrong


def violations_of_tickets(
    tickets: Sequence[TicketOnRecord], told: Mapping[Claimant, Answer], act: Act, *, in_the_end: bool
) -> list[str]:
    """What is wrong with what was told of tickets: I7 whoever was told of one has it, and who has left has left."""
    wrong: list[str] = []
    of_user = {(each.coupon, each.user): each for each in tickets}
    for claimant, answer in told.items():
        who = f"{claimant.user_id} on {claimant.coupon_name} was told {answer}"
        ticket = of_user.get((claimant.coupon_name, claimant.user_id))
        if not is_decided(answer):
            continue
        if act is Act.LEAVE:
            if answer.status != 204 or ticket is None or ticket.state != "left":
                wrong.append(f"I7: {who}, and has {ticket}")
        elif in_the_end and answer.problem == "already-claimed":
            if ticket is None or ticket.claim != answer.claim_id:
                wrong.append(f"I7: {who} with claim {answer.claim_id}, and has {ticket}")
        elif answer.status != 202 or ticket is None or ticket.id != answer.claim_id:
            wrong.append(f"I7: {who} with ticket {answer.claim_id}, and has {ticket}")
    return wrong


def violations_of_ends(
    tickets: Sequence[TicketOnRecord],
    stocks: Mapping[str, Stock],
    claimants: Sequence[Claimant],
    told: Mapping[Claimant, Answer],
    act: Act,
) -> list[str]:
    """What is wrong with tickets when all have ended: each user has one, and one claim with it, or has left."""
    wrong = [f"I13: {claimant} was told {answer}" for claimant, answer in told.items() if not is_decided(answer)]
    for claimant in claimants:
        mine = [each for each in tickets if (each.coupon, each.user) == (claimant.coupon_name, claimant.user_id)]
        held = stocks[claimant.coupon_name].claims.get(claimant.user_id, [])
        if len(mine) != 1:
            wrong.append(f"I7: {claimant} has {len(mine)} tickets")
        elif act is Act.LEAVE:
            if mine[0].state != "left" or held:
                wrong.append(f"I7: {claimant} wanted to leave, and has {mine[0]} and {held}")
        elif mine[0].state != "claimed" or [mine[0].claim] != held:
            wrong.append(f"I7: {claimant} has {mine[0]} and {held}")
    return wrong


def is_decided(answer: Answer) -> bool:
    return bool(answer.status) and (answer.status, answer.problem) not in _UNDECIDED
