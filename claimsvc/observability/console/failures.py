"""Sentences about claims that fail: by the objective's own figures, and for which reason."""

import time
from collections.abc import Callable, Iterator

from claimsvc.observability.console.explanations import describe_holder, explain_stranger, explain_turn
from claimsvc.observability.console.formatting import listed, milliseconds, number, percent, times
from claimsvc.observability.console.locks import STRANGER, STUCK
from claimsvc.observability.console.objectives import FAILED_ALLOWED, WORDS
from claimsvc.observability.console.picture import RECENT_SECONDS, CouponRow, Picture
from claimsvc.observability.console.verdict import Scene, Verdict

# A claim waits 1.5 s before it gives up. If none has given up for this long, the condition has ended.
_OVER_AFTER_SECONDS = 10.0


def suspect(picture: Picture) -> str | None:
    """Return the coupon whose lock should be inspected on the masters, if any."""
    rows = [row for row in picture.coupons if row.lock == STRANGER]
    return max(rows, key=lambda row: (row.gave_up, row.busy)).name if rows else None


def may_be_held(picture: Picture) -> bool:
    """Whether a session of PostgreSQL may hold a coupon's row: claims wait, or fail, and it is not known why."""
    if any(row.lock in (STRANGER, STUCK) or (row.gave_up and not _is_over(row)) for row in picture.coupons):
        return True
    if "unavailable" in picture.outcomes or any(not row.is_ready for row in picture.instances):
        return True
    return bool(picture.waiting) and any(picture.instances[place].pool_in_use for place in picture.speaking)


def violated(scene: Scene) -> Iterator[Verdict]:
    """Transactions that violated an invariant: an alert pages for an hour."""
    count = scene.picture.objectives.windows.get("1h", {}).get("violations", 0.0)
    if count:
        yield Verdict(
            "violated",
            "bad",
            f"{times(count, 'transaction')} violated an invariant within the last hour and "
            f"{'was' if count == 1 else 'were'} rolled back: the code or the data is wrong.",
            advice="The log has it at level error. Run `claimsvc doctor`, and report it.",
        )


def failing(scene: Scene) -> Iterator[Verdict]:
    """The availability objective burns as fast as the alert that pages allows, or faster."""
    objectives = scene.picture.objectives
    burning = objectives.burning("failed", "requests", FAILED_ALLOWED)
    if burning is None:
        return
    shares = " and ".join(
        f"{percent(objectives.share(each, 'failed', 'requests'), 1)} of the {WORDS[each]}" for each in burning
    )
    evidence = f"Answered with a 5xx: {shares}; the objective allows {percent(FAILED_ALLOWED, 1)}, and an alert pages."
    reason = next((verdict for check in REASONS for verdict in check(scene) if _is_said(scene, verdict)), None)
    if reason is not None:
        yield Verdict(
            f"failing {reason.kind}",
            "bad",
            f"Claims fail. {reason.text[:1].upper() + reason.text[1:] if ': ' not in reason.text else reason.text}",
            f"{reason.evidence} {evidence}".strip(),
            reason.advice,
        )
        return
    seconds = max(0.0, time.time() - objectives.failed_at)
    if scene.picture.failed and seconds <= RECENT_SECONDS / 3:
        share = percent(scene.picture.failed / scene.picture.answered, 1)
        text = f"Claims fail: {share} of those of the last ten seconds were answered with a 5xx."
        yield Verdict("failing", "bad", text, evidence, "The log and the events below say why; /readyz?verbose, too.")
        return
    yield Verdict(
        "failing-before",
        "warning",
        f"Claims failed until {seconds:.0f} s ago, often enough that an alert pages. That has ended.",
        evidence,
        f"The alert ends when the {WORDS[burning[0]]} are within it. The events below say what it was.",
    )


def _is_said(scene: Scene, verdict: Verdict) -> bool:
    return not verdict.is_cause or scene.is_settled(verdict.kind)


def row_held(scene: Scene) -> Iterator[Verdict]:
    """A session of PostgreSQL holds a coupon's row, and others wait for it."""
    for holder in scene.holders:
        if holder.waiting:
            held = "" if holder.seconds is None else f" for {holder.seconds:.0f} s"
            state = f"It is {holder.state}. " if holder.state else ""
            query = f"Its last statement: {holder.query}" if holder.query else ""
            yield Verdict(
                f"row {holder.coupon_name}",
                "bad",
                f"{holder.coupon_name}: its row in PostgreSQL is held by {holder.who}{held}, so its claims wait.",
                f"{state}{times(holder.waiting, 'session')} wait{'s' if holder.waiting == 1 else ''} for it. {query}",
                f"Find out what it does; to end it: SELECT pg_terminate_backend({holder.pid}).",
                is_cause=True,
            )


def broken(scene: Scene) -> Iterator[Verdict]:
    """Defects."""
    if rate := scene.picture.recent_outcomes.get("internal-error"):
        yield Verdict(
            "broken",
            "bad",
            f"{number(rate)} claims a second fail with an internal error.",
            advice="This is a defect. The log has its cause at level error; report it.",
        )


def stranger(scene: Scene) -> Iterator[Verdict]:
    """A lock that no known instance holds. Before claims that gave up, because it explains them."""
    picture, looked = scene.picture, scene.looked
    name = suspect(picture)
    for row in picture.coupons:
        if row.name == name:
            known = looked if looked is not None and looked.coupon_name == name else None
            evidence, advice = explain_stranger(picture, row, known)
            text = f"{name}: the lock is refused, although no known instance holds it."
            level = "bad" if row.gave_up else "warning"
            yield Verdict(f"stranger {name}", level, text, evidence, advice, is_cause=True)


def gave_up(scene: Scene) -> Iterator[Verdict]:
    """Claims that waited too long for a lock."""
    rows = [row for row in scene.picture.coupons if row.gave_up and not _is_over(row)]
    rows.sort(key=lambda row: (row.remaining == 0, -row.gave_up, row.name))
    if len(rows) > 1 and rows[0].remaining != 0 and 2 * rows[0].gave_up < sum(row.gave_up for row in rows):
        count = sum(row.gave_up for row in rows)
        names = listed([row.name for row in rows[:3]]) + (" and others" if len(rows) > 3 else "")
        text = f"Claims of {len(rows)} coupons gave up waiting for their locks: {names}."
        evidence = f"In {RECENT_SECONDS:.0f} s {times(count, 'claim')} gave up."
        yield Verdict("gave-up-several", "bad", text, evidence, _of_all(scene))
        return
    for row in rows:
        evidence = f"{_given_up(row)}."
        if row.remaining == 0:
            text = f"{row.name} is sold out, and some claims timed out on the lock before they got this answer."
            yield Verdict(f"gave-up-late {row.name}", "warning", text, evidence, explain_turn(row))
        left = "" if row.remaining is None else " with stock left"
        yield Verdict(
            f"gave-up {row.name}",
            "bad",
            f"{row.name}: claims gave up waiting for the lock{left}.",
            evidence,
            describe_holder(scene.picture, row) or explain_turn(row),
        )


def _of_all(scene: Scene) -> str:
    return "They have one cause if it began for all at once: look at PostgreSQL, the masters and the instances below."


def gave_up_before(scene: Scene) -> Iterator[Verdict]:
    """The same, when it has ended."""
    rows = [row for row in scene.picture.coupons if row.gave_up]
    for row in sorted(rows, key=lambda row: (-row.gave_up, row.name)):
        now = f"{number(row.rate)} claims a second are answered" if row.rate >= 1 else "there are hardly any claims"
        yield Verdict(
            f"gave-up-before {row.name}",
            "warning",
            f"{row.name}: claims gave up waiting for the lock. That has ended.",
            f"{_given_up(row)}; now {now}.",
            "The current figures no longer show the cause: see the events and the dashboards.",
        )


def _is_over(row: CouponRow) -> bool:
    return (row.gave_up_age_seconds or 0) >= _OVER_AFTER_SECONDS


def _given_up(row: CouponRow) -> str:
    return f"In {RECENT_SECONDS:.0f} s {times(row.gave_up, 'claim')} gave up, the last {row.gave_up_age_seconds} s ago"


def long_held(scene: Scene) -> Iterator[Verdict]:
    """A lock that one instance has held for seconds."""
    for row in scene.picture.coupons:
        if row.lock == STUCK:
            yield Verdict(
                f"stuck {row.name}",
                "warning",
                f"The lock of {row.name} is stuck: {describe_holder(scene.picture, row)}",
                advice="The process is paused, or its transaction is blocked. Other instances can continue once the "
                "lock's TTL has passed.",
            )


def unavailable(scene: Scene) -> Iterator[Verdict]:
    """Claims that a dependency fails, or that there are too many of."""
    picture = scene.picture
    rate = picture.recent_outcomes.get("unavailable", 0.0)
    if not rate:
        return
    if any(row.pool_in_use >= row.pool_size for row in picture.instances if not row.silent_seconds):
        yield Verdict(
            "pool",
            "bad",
            f"PostgreSQL cannot keep up: {number(rate)} claims a second fail, and every connection is in use.",
            f"A transaction takes {milliseconds(picture.transaction_ms)}, including the wait for a connection.",
            "Find out what blocks the transactions (pg_stat_activity).",
        )
    yield Verdict(
        "unavailable",
        "bad",
        f"{number(rate)} claims a second fail, because a dependency does not answer or this service is overloaded.",
        advice="/readyz?verbose shows what is down.",
    )


REASONS: tuple[Callable[[Scene], Iterator[Verdict]], ...] = (
    row_held,
    broken,
    stranger,
    gave_up,
    long_held,
    unavailable,
)
