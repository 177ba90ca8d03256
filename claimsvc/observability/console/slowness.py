"""Sentences about claims that are answered: how fast against the objective, whose time it is, and what is contended."""

from collections.abc import Iterator

from claimsvc.observability.console.explanations import explain_turn
from claimsvc.observability.console.formatting import listed, milliseconds, number, percent, times
from claimsvc.observability.console.locks import CONTENDED, SOLD_OUT
from claimsvc.observability.console.objectives import SLOW_ALLOWED, WORDS
from claimsvc.observability.console.picture import LOCK, POSTGRESQL, REDIS, SERVICE, CouponRow, Picture
from claimsvc.observability.console.verdict import Scene, Verdict
from claimsvc.observability.metrics import SLOW_SECONDS
from claimsvc.observability.metrics.busiest import OTHER

_MUCH_WAITING = 100
# A coupon is hot if it gets this share of all claims.
_HOT_SHARE = 0.6
_BUSY_RATE = 20.0
_SLOW_MS = 1000 * SLOW_SECONDS


def slow(scene: Scene) -> Iterator[Verdict]:
    """Slower than the objective allows: so often that an alert pages, or in the last ten seconds."""
    picture, objectives = scene.picture, scene.picture.objectives
    burning = objectives.burning("slow", "decided", SLOW_ALLOWED)
    is_now = picture.slow_share > SLOW_ALLOWED
    limit = f"{_SLOW_MS:.0f} ms"
    now = f"{percent(picture.slow_share)} of the claims of the last ten seconds took longer than {limit}"
    allowed = f"the objective allows {percent(SLOW_ALLOWED)}"
    if burning is not None:
        shares = " and ".join(
            f"{percent(objectives.share(each, 'slow', 'decided'))} of the {WORDS[each]}" for each in burning
        )
        pages = f"Longer than {limit}: {shares}; {allowed}, and an alert pages."
        if not is_now:
            text = "Claims were slow, so often that an alert pages. Now they are not."
            advice = f"The alert ends when the {WORDS[burning[0]]} are within the objective."
            yield Verdict("slow-before", "warning", text, pages, advice)
            return
        yield from _blamed(scene, "bad", f"{now}. {pages}")
    elif is_now:
        yield from _blamed(scene, "warning", f"{now}; {allowed}.")
    elif picture.waiting and not picture.answered and not picture.decided:
        yield from _blamed(scene, "bad", f"{times(picture.waiting, 'claim')} wait, and none was answered.")


def _blamed(scene: Scene, level: str, evidence: str) -> Iterator[Verdict]:
    """Name whose time it is, if it has been so for most of the last ten seconds."""
    picture = scene.picture
    blame = picture.times.blame
    if blame and scene.is_settled(f"slow-{blame}"):
        text, more, advice = _BLAMED[blame](picture)
        yield Verdict(f"slow-{blame}", level, text, f"{evidence} {more}", advice, is_cause=True)
    shares = (
        f"Their time: {percent(picture.times.lock)} waiting for turns, {percent(picture.times.redis)} Redis, "
        f"{percent(picture.times.postgresql)} PostgreSQL, {percent(picture.times.service)} this service."
    )
    advice = "No single cause has been most of the last ten seconds. First check what all share: CPUs, network, disks."
    yield Verdict("slow", level, "Claims are slow.", f"{evidence} {shares}", advice, is_cause=True)


def _of_postgresql(picture: Picture) -> tuple[str, str, str]:
    takes = (
        f"a transaction takes {milliseconds(picture.transaction_ms)}"
        if picture.transaction_ms
        else "no transaction has ended"
    )
    return (
        f"Claims are slow, because they wait for PostgreSQL: {takes}.",
        f"A call of Redis takes up to {milliseconds(_call_ms(picture))}.",
        "Find out what blocks it (pg_stat_activity), and check its disk: every batch waits for one flush.",
    )


def _of_redis(picture: Picture) -> tuple[str, str, str]:
    slowest = [row.name for row in picture.masters if 2 * row.call_ms >= _call_ms(picture)]
    return (
        f"Claims are slow, because they wait for Redis: a call takes {milliseconds(_call_ms(picture))}.",
        f"A transaction takes {milliseconds(picture.transaction_ms)}." if picture.transaction_ms else "",
        f"Check {listed(slowest)}: disk (appendfsync), network, other users.",
    )


def _of_lock(picture: Picture) -> tuple[str, str, str]:
    contended = _contended_rows(picture)
    names = f" of {listed([row.name for row in contended[:3]])}" if contended else ""
    advice = explain_turn(contended[0]) if len(contended) == 1 else ""
    return (
        f"Claims are slow, because they wait for turns at the lock{names}.",
        f"{percent(picture.times.lock)} of the time is waiting for another instance's turn.",
        advice or "The turns are short, so it is their number: fewer instances for these coupons wait less.",
    )


def _of_service(picture: Picture) -> tuple[str, str, str]:
    share, late = percent(picture.times.service), milliseconds(picture.lag_ms)
    return (
        "Claims are slow, because the instances are: most of the time is spent in this service.",
        f"The service's share is {share}; its event loops wake {late} late.",
        "Check the CPU of the instances: start more of them, or give them more.",
    )


_BLAMED = {POSTGRESQL: _of_postgresql, REDIS: _of_redis, LOCK: _of_lock, SERVICE: _of_service}


def _call_ms(picture: Picture) -> float:
    return max((row.call_ms for row in picture.masters), default=0.0)


def queueing(scene: Scene) -> Iterator[Verdict]:
    """More claims arrive than are decided."""
    picture = scene.picture
    if picture.waiting >= _MUCH_WAITING and picture.p99_ms is not None and picture.p99_ms >= 1000:
        yield Verdict(
            "queueing",
            "warning",
            f"{picture.waiting:,} claims are waiting, and the slowest take {milliseconds(picture.p99_ms)}.",
            advice="Claims arrive faster than they are decided: start more instances, or wait until the peak is over.",
            is_cause=True,
        )


def _contended_rows(picture: Picture) -> list[CouponRow]:
    rows = [row for row in picture.coupons if row.lock == CONTENDED and row.name != OTHER]
    return sorted(rows, key=lambda row: (-row.acquired - row.busy, row.name))


def contended(scene: Scene) -> Iterator[Verdict]:
    """Locks that instances wait for longer than they hold them."""
    rows = _contended_rows(scene.picture)
    if len(rows) > 1:
        shares = [row.waiting_share for row in rows]
        names = listed([row.name for row in sorted(rows, key=lambda row: row.name)[:3]])
        more = f" and {len(rows) - 3} more" if len(rows) > 3 else ""
        yield Verdict(
            "contended-several",
            "good",
            f"{len(rows)} coupons are contended: {names}{more}. None of them alone is the cause.",
            f"{percent(min(shares))} to {percent(max(shares))} of the time at their locks is waiting.",
            f"Claims are within the objective of {_SLOW_MS:.0f} ms.",
            is_cause=True,
        )
        return
    for row in rows:
        yield Verdict(
            f"contended {row.name}",
            "good",
            f"{row.name} is contended: {len(row.turns)} instances take turns, and {percent(row.waiting_share)} of "
            f"their time is waiting for its lock ({milliseconds(row.wait_ms)} each time).",
            f"{_refused(row)}It was held for {percent(row.held_share)} of the last ten seconds.",
            f"Claims are within the objective of {_SLOW_MS:.0f} ms. {explain_turn(row)}",
            is_cause=True,
        )


def _refused(row: CouponRow) -> str:
    return f"{percent(row.busy_share)} of the attempts found it busy. " if row.busy_share else ""


def hot(scene: Scene) -> Iterator[Verdict]:
    """One coupon gets most of the claims."""
    rows = sorted(scene.picture.coupons, key=lambda row: (-row.rate, row.name))
    total = sum(row.rate for row in rows)
    if total < 1:
        return
    hottest = rows[0]
    name, rate = hottest.name, number(hottest.rate)
    if hottest.lock == SOLD_OUT or hottest.outcomes.get("sold-out", 0.0) > hottest.rate / 2:
        if hottest.rate >= _HOT_SHARE * total:
            text = f"{name} is sold out, and still gets {rate} claims a second."
            yield Verdict(f"sold-out {name}", "good", text, is_cause=True)
    elif hottest.outcomes.get("not-open", 0.0) > hottest.rate / 2:
        why = "not started, paused, ended, or users not eligible"
        text = f"{name} is not open ({why}), and gets {rate} claims a second."
        yield Verdict(f"not-open {name}", "good", text, is_cause=True)
    elif hottest.rate >= max(_HOT_SHARE * total, _BUSY_RATE):
        wait = (
            "one instance uses its lock"
            if len(hottest.turns) < 2
            else f"the wait for its lock is {milliseconds(hottest.wait_ms)}"
        )
        yield Verdict(f"hot {name}", "good", f"{name} is hot: {rate} claims a second; {wait}.", is_cause=True)


def busy(scene: Scene) -> Iterator[Verdict]:
    """Claims are answered, and nothing else is to be said."""
    picture = scene.picture
    total = sum(row.rate for row in picture.coupons)
    coupons = times(sum(row.rate > 0 for row in picture.coupons), "coupon")
    none = "" if _contended_rows(picture) else "; none is contended"
    if total >= 1:
        yield Verdict("busy", "good", f"{number(total)} claims a second on {coupons}{none}.")
    elif picture.answered:
        yield Verdict("busy", "good", f"{times(picture.answered, 'claim')} in the last ten seconds; none waits.")
    elif picture.waiting:
        yield Verdict("busy", "good", f"{times(picture.waiting, 'claim')} wait for the answer.")
