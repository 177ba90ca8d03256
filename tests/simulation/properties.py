"""What must hold in every run, whatever the scenario; and what else must hold where nothing went wrong."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING

from claimsvc.domain import AlreadyClaimed, Claim, Claimed, ClaimState, SoldOut, StrategyName, UnknownCoupon
from claimsvc.errors import InvariantViolatedError, LockBusyError, TransientError, UnavailableError
from tests.simulation.database import Change
from tests.simulation.instance import LOCK_TIMEOUT_SECONDS, Record
from tests.simulation.masters import LOCK
from tests.simulation.scenario import Kind, Scenario, may_strand_locks

if TYPE_CHECKING:
    from tests.simulation.run import Simulation

_DEFINITE = (Claimed, AlreadyClaimed, SoldOut, UnknownCoupon)
# Deadlines of claims are looked at every 0.1 s, and their last attempt is waited for another 0.1 s.
_PRECISION_SECONDS = 0.25
# Who is woken waits for a few slices and transactions; who is not, for the pause between two attempts: 0.5 s.
_LOST_HINT_SECONDS = 0.4


def violations(simulation: "Simulation") -> list[str]:
    """What was promised and does not hold, one sentence each; what is before its colon names the promise."""
    found = [*_stock(simulation), *_combined(simulation), *_answers(simulation), *_quiet(simulation)]
    found += _logs(simulation)
    if is_calm(simulation.scenario):
        found += _calm(simulation)
    elif is_harmless(simulation.scenario):
        found += _decided(simulation)
    return found


def is_calm(scenario: Scenario) -> bool:
    """Whether nothing goes wrong in the scenario, so that every claim must be decided."""
    return not scenario.faults and scenario.refused_user is None and scenario.waiting_limit >= scenario.claims


_HARMLESS = {
    Kind.FORGET_SCRIPTS,
    Kind.CLOCK_JUMP,
    Kind.LOST_HINTS,
    Kind.MASTER_DOWN,
    Kind.MASTER_RESTART,
    Kind.MASTER_HANG,
    Kind.MASTER_READ_ONLY,
}


def is_harmless(scenario: Scenario) -> bool:
    """Whether only a minority of the masters has trouble, which no client may notice."""
    return (
        scenario.masters == 3
        and all(fault.kind in _HARMLESS for fault in scenario.faults)
        and len({fault.which % scenario.masters for fault in scenario.faults}) == 1
        and scenario.refused_user is None
        and scenario.waiting_limit >= scenario.claims
    )


def _records(simulation: "Simulation") -> list[Record]:
    return [record for instance in simulation.instances for record in instance.records]


def _stock(simulation: "Simulation") -> Iterator[str]:
    """I1, I3, I4: what was acknowledged is there, once, and no more of it than there was."""
    database = simulation.database
    acknowledged: dict[str, set[str]] = {}
    for record in _records(simulation):
        if isinstance(record.answer, Claimed):
            acknowledged.setdefault(record.coupon.name, set()).add(record.answer.claim.id)
    for coupon in simulation.scenario.coupons:
        ids = {claim.id for claim in database.claims_of.get(coupon.name, ())} | set(database.ended)
        if not acknowledged.get(coupon.name, set()) <= ids:
            yield f"lost: a claim of {coupon.name} was acknowledged and is not there"
        active: Counter[str] = Counter()
        for change in database.history[coupon.name]:
            if change.remaining_amount < 0:
                yield f"oversold: {-change.remaining_amount} units of {coupon.name} too many"
            if change.claim is not None:
                active[change.claim.user_id] += 1 if change.claim.state is ClaimState.ACTIVE else -1
                if active[change.claim.user_id] > 1:
                    yield f"duplicate: {change.claim.user_id} holds {coupon.name} twice"


def _combined(simulation: "Simulation") -> Iterator[str]:
    """I19: what was handed over is decided once, nothing is carried out after a refusal, and nothing is left behind."""
    database = simulation.database
    for id_, times in database.decided.items():
        if times > 1:
            yield f"decided {times} times: {id_}"
        if id_ in database.withheld:
            yield f"decided though withheld: {id_}"
    yield from (f"misled: the origin of {id_} was told that it is decided" for id_ in database.misled)
    for coupon in simulation.scenario.coupons:
        made = [change for change in database.history[coupon.name] if _is_made(change)]
        for user in dict.fromkeys(change.claim.user_id for change in made if change.claim is not None):
            yield from _surplus(simulation, coupon.name, user)
    for instance in simulation.instances:
        if instance.combiner is not None and instance.process not in simulation.killed:
            left = {
                "answers expected": instance.combiner._expected,
                "desks open": instance.combiner._desks,
            }
            yield from (f"left: {what} in instance {instance.process}" for what, items in left.items() if items)


def _is_made(change: Change) -> bool:
    return change.claim is not None and change.claim.state is ClaimState.ACTIVE


def _surplus(simulation: "Simulation", coupon_name: str, user: str) -> Iterator[str]:
    """Each claim that was made is one that its user was told of, or one of a request without a definite answer."""
    asked = [each for each in _records(simulation) if each.user == user and each.coupon.name == coupon_name]
    told = Counter(each.answer.claim.id for each in asked if isinstance(each.answer, Claimed))
    uncertain = sorted(each.started for each in asked if _is_uncertain(each))
    for change in simulation.database.history[coupon_name]:
        if not _is_made(change) or change.claim is None or change.claim.user_id != user:
            continue
        if told[change.claim.id]:
            told[change.claim.id] -= 1
        elif uncertain and uncertain[0] <= change.at:
            del uncertain[0]
        else:
            yield f"carried out: {user} got {coupon_name} though a refusal was told, or got it again after cancelling"
    if any(times > 0 for times in told.values()):
        yield f"told twice: a claim of {coupon_name} of {user}"


def _is_uncertain(record: Record) -> bool:
    answer = record.answer
    if isinstance(answer, UnavailableError):
        return "nothing was decided" not in str(answer) and answer.dependency != "redis"
    return answer is None or isinstance(answer, asyncio.CancelledError)


def _answers(simulation: "Simulation") -> Iterator[str]:
    """I5, I9: every claim has one answer, in time, and it is true."""
    for record in _records(simulation):
        where = f"{record.user} on {record.coupon.name} at instance {record.process}"
        if record.ended is None:
            if record.process not in simulation.killed:
                yield f"unanswered: {where}"
            continue
        longest = _longest_wait(simulation, record)
        if record.ended - record.started > longest:
            yield f"late: {where} was answered after {record.ended - record.started:.3f} s; {longest:.3f} s are allowed"
        yield from (f"{untruth} {where}" for untruth in _untruths(simulation, record))


def _longest_wait(simulation: "Simulation", record: Record) -> float:
    """How long a claim may take: its limit in the queue, and the longest answers of the servers that it waited for."""
    # The time for which it was handed over counts as waiting for the lock.
    was_refused = isinstance(record.answer, LockBusyError)
    queued = 0.0 if was_refused else simulation.scenario.queue_timeout_seconds
    return max(queued, LOCK_TIMEOUT_SECONDS) + _longest_answers(simulation, record.process)


def _longest_drain(simulation: "Simulation", process: int) -> float:
    queued = max(simulation.scenario.queue_timeout_seconds, LOCK_TIMEOUT_SECONDS)
    return queued + _longest_answers(simulation, process)


def _longest_answers(simulation: "Simulation", process: int) -> float:
    scenario = simulation.scenario
    redis = (5 + len(scenario.coupons)) * min(simulation.witness.slowest_reply, 0.6)
    servers = 5 * simulation.database.slowest_call + redis
    return servers + simulation.paused_seconds[process] + _PRECISION_SECONDS


def _untruths(simulation: "Simulation", record: Record) -> Iterator[str]:
    answer, ended = record.answer, record.ended or 0.0
    history = simulation.database.history[record.coupon.name]
    if isinstance(answer, (Claimed, AlreadyClaimed)):
        if answer.claim.user_id != record.user or not _was_active(history, answer.claim, record):
            yield "untrue: a claim that was not theirs then was told to"
    elif isinstance(answer, SoldOut):
        if not _was_sold_out(history, record):
            yield "untrue: sold-out was told, and something was left, or they held a claim, to"
    elif isinstance(answer, UnknownCoupon):
        if record.coupon.exists:
            yield "untrue: unknown-coupon was told to"
    elif isinstance(answer, LockBusyError):
        if ended - record.started < LOCK_TIMEOUT_SECONDS - 1e-6:
            yield f"impatient: lock-busy after {ended - record.started:.3f} s to"
        if not _could_be_busy(simulation, record):
            yield "untrue: lock-busy of a lock that nobody else held to"
    elif isinstance(answer, InvariantViolatedError):
        if record.user not in simulation.database.refused_users:
            yield "sunk: the refusal of another's row reached"
    elif isinstance(answer, asyncio.CancelledError):
        if not record.hung_up:
            yield "cancelled: somebody else's cancellation reached"
    elif not isinstance(answer, TransientError):
        yield f"broken: {answer!r} reached"


def _was_active(history: Sequence[Change], claim: Claim, record: Record) -> bool:
    """Whether it was, at a moment of the call."""
    since = next((each.at for each in history if each.claim == claim), None)
    if since is None or record.ended is None or since > record.ended:
        return False
    ends = [each.at for each in history if each.claim is not None and each.claim.id == claim.id and not _is_made(each)]
    return not ends or max(ends) >= record.started


def _was_sold_out(history: Sequence[Change], record: Record) -> bool:
    """Whether nothing was left at a moment of the call at which the user held no claim."""
    held = False
    for change, following in zip_longest(history, history[1:]):
        if change.claim is not None and change.claim.user_id == record.user:
            held = change.claim.state is ClaimState.ACTIVE
        ends = following.at if following is not None else float("inf")
        overlaps = change.at <= (record.ended or 0.0) and ends >= record.started
        if overlaps and not held and change.remaining_amount <= 0:
            return True
    return False


def _could_be_busy(simulation: "Simulation", record: Record) -> bool:
    if may_strand_locks(simulation.scenario):
        return True
    return simulation.witness.was_held_by_another(
        record.coupon.name, record.process, record.started, record.ended or record.started
    )


def _quiet(simulation: "Simulation") -> Iterator[str]:
    """I10, I12, I13: claims are answered again, and nothing is left behind."""
    for probe in simulation.run.probes:
        refused = simulation.database.refused_users
        if not isinstance(probe.answer, _DEFINITE) and probe.user not in refused:
            yield f"unhealed: {probe.coupon.name} at instance {probe.process} answers {probe.answer!r}"
    for instance in simulation.instances:
        if instance.process in simulation.killed:
            continue
        if tasks := simulation.loop.tasks_of(instance.process):
            yield f"stray: instance {instance.process} has ended and {tasks[0].get_coro()} runs on"
        if instance.drained_in is None:
            yield f"undrained: instance {instance.process} never came to its end"
        elif instance.drained_in > (longest := _longest_drain(simulation, instance.process)):
            yield f"undrained: instance {instance.process} took {instance.drained_in:.3f} s to stop, not {longest:.3f}"
        if instance.left_waiting:
            yield f"undrained: {instance.left_waiting} claims were left waiting by instance {instance.process}"
        if instance.observed.waiters:
            yield f"stray: {instance.observed.waiters} waiters are counted in an instance that has ended"
    if not may_strand_locks(simulation.scenario):
        for host in simulation.hosts:
            for key in host.redis.keys(LOCK):
                yield f"stranded: {key} on master {host.number}"
    yield from _counters(simulation)


def _counters(simulation: "Simulation") -> Iterator[str]:
    if not simulation.run.probes:
        return
    for coupon in simulation.scenario.coupons:
        for host in simulation.hosts:
            count = host.redis.get(f"claim:stock:{{{coupon.name}}}")
            if coupon.strategy is StrategyName.COUNTER and count is not None:
                remaining = simulation.database.history[coupon.name][-1].remaining_amount
                if int(count) != remaining:
                    yield f"drifted: the counter of {coupon.name} says {count} and the database {remaining}"


def _logs(simulation: "Simulation") -> Iterator[str]:
    for line in simulation.border.logged:
        if line["level"] in {"error", "critical", "exception"}:
            yield f"defect: {line['event']}: {line.get('exc_info')!r}"


def _decided(simulation: "Simulation") -> Iterator[str]:
    for record in _records(simulation):
        if not isinstance(record.answer, (asyncio.CancelledError, *_DEFINITE)):
            yield f"starved: {record.user} on {record.coupon.name} was answered {record.answer!r}"


def _calm(simulation: "Simulation") -> Iterator[str]:
    """Without a fault, every claim is decided, soon, and instances take turns."""
    yield from _decided(simulation)
    witness, scenario = simulation.witness, simulation.scenario
    for wait in witness.waits:
        if wait.overtaken > (most := 2 * scenario.instances + 2):
            yield f"unfair: instance {wait.process} in line was overtaken {wait.overtaken} times; {most} are allowed"
        if wait.seconds > _LOST_HINT_SECONDS:
            yield f"unwoken: instance {wait.process} waited {wait.seconds:.3f} s in vain"
    for instance in simulation.instances:
        if instance.observed.lost_locks:
            yield f"lost lock: instance {instance.process} lost a lock that nobody took"
