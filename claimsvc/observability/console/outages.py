"""Sentences about what is not there: instances that are not ready, or silent, and masters that are down."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from claimsvc.observability.console.formatting import instances, listed, times
from claimsvc.observability.console.picture import InstanceRow, Picture
from claimsvc.observability.console.verdict import Scene, Verdict

# As `doctor` is the first command for all of them.
_DOCTOR = "Run `claimsvc doctor` where an instance runs: it says why, and what to do."
_POOL = "every connection of the pool"
_SCHEMA = "the database's schema"
# How explanations of `postgres.troubles` begin if there was no answer at all.
_SILENCE = ("no server listens", "it does not answer", "its host", "it closes the connection")


def not_ready(scene: Scene) -> Iterator[Verdict]:
    """All instances, or most of them: a load balancer sends them no claims, or fails for want of others."""
    picture = scene.picture
    unready = [place for place in picture.speaking if not picture.instances[place].is_ready]
    if unready and 2 * len(unready) >= len(picture.speaking):
        yield _of_unready(scene, unready, "bad")


def some_not_ready(scene: Scene) -> Iterator[Verdict]:
    """A minority of the instances."""
    unready = [place for place in scene.picture.speaking if not scene.picture.instances[place].is_ready]
    if unready:
        yield _of_unready(scene, unready, "warning")


def _of_unready(scene: Scene, unready: Sequence[int], level: str) -> Verdict:
    picture = scene.picture
    rows = [picture.instances[place] for place in unready]
    if len(unready) == len(picture.speaking):
        subject = "Not ready"
    else:
        verb = "is" if len(unready) == 1 else "are"
        subject = f"{instances(picture, unready)} {verb} not ready"
    sinces = [state.since for row in rows for state in row.health.values() if not state.is_up]
    reasons = [*_database(rows), *_masters(picture, rows)]
    advice = _DOCTOR
    if len(unready) < len(picture.speaking):
        advice = f"The others are ready: check the network of these. {_DOCTOR}"
    elif any(not row.has_quorum for row in rows):
        down = [row.name for row in picture.masters if row.down_at]
        advice = f"Restart {listed(down)} with its data: claims continue by themselves. {_DOCTOR}"
    return Verdict(
        f"not-ready {level} {'pg' if _database(rows) else ''} {'redis' if _masters(picture, rows) else ''}",
        level,
        f"{subject}: {'; '.join(reasons)}.",
        " ".join([*_why(rows), *_holders(scene)]),
        advice,
        since=min(sinces, default=None),
    )


def _database(rows: Sequence[InstanceRow]) -> list[str]:
    """Return what is wrong with all dependencies but Redis, by the instance that found it first."""
    found: dict[str, tuple[float, str]] = {}
    for row in rows:
        for name, state in row.health.items():
            if name != "redis" and not state.is_up and state.since < found.get(name, (float("inf"), ""))[0]:
                found[name] = state.since, state.why
    return [f"{_trouble(name, why)} since {_clock(since)}" for name, (since, why) in found.items()]


def _trouble(name: str, why: str) -> str:
    if why.startswith(_POOL):
        return "every connection to PostgreSQL is in use"
    if why.startswith(_SCHEMA):
        return "the database's schema is too old"
    if name != "postgresql":
        return f"{name} does not answer"
    found, is_explained, _ = why.partition(" (")
    if is_explained and not found.startswith(_SILENCE):
        return f"PostgreSQL refuses this service: {found}"
    return "PostgreSQL does not answer"


def _why(rows: Sequence[InstanceRow]) -> list[str]:
    whys = {state.why for row in rows for name, state in row.health.items() if name != "redis" and not state.is_up}
    return [f"What it says: {why.rstrip('.')}." for why in sorted(filter(None, whys))[:1]]


def _holders(scene: Scene) -> list[str]:
    return [
        f"The row of {holder.coupon_name} is held by {holder.who}."
        for holder in scene.holders[:1]
        if any(state.why.startswith(_POOL) for row in scene.picture.instances for state in row.health.values())
    ]


def _masters(picture: Picture, rows: Sequence[InstanceRow]) -> list[str]:
    without = [row for row in rows if not row.has_quorum]
    if without:
        most = max(len(row.masters_down) for row in without)
        all_of_them = len(without) == len(picture.speaking)
        who = "" if all_of_them else "it reaches no majority of the masters: "
        return [f"{who}{most} of {len(picture.masters)} masters are down, so claims under the lock fail"]
    if any(not state.is_up for row in rows for name, state in row.health.items() if name == "redis"):
        return ["a majority of the masters was down a moment ago"]
    return []


def _clock(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%H:%M:%S} UTC"


def silent(scene: Scene) -> Iterator[Verdict]:
    """Instances that are paused, cut off or dead."""
    picture = scene.picture
    places = [place for place, row in enumerate(picture.instances) if row.silent_seconds]
    if places:
        longest = max(picture.instances[place].silent_seconds for place in places)
        verb = "is" if len(places) == 1 else "are"
        yield Verdict(
            "silent",
            "warning",
            f"{instances(picture, places)} {verb} silent for {longest:.0f} s: paused, cut off from Redis, or dead.",
            "What it did last is not counted here any more.",
            "Look whether the process runs (kill -CONT resumes a paused one); a dead one is forgotten after a minute.",
        )


def master_down(scene: Scene) -> Iterator[Verdict]:
    """Some masters, but not a majority for anybody."""
    picture = scene.picture
    down = [row.name for row in picture.masters if row.down_at]
    if not down:
        return
    spare = (len(picture.masters) - 1) // 2 - max(
        (len(picture.instances[place].masters_down) for place in picture.speaking), default=0
    )
    more = "one more would stop claims under the lock" if spare <= 0 else f"{spare} more may fail"
    yield Verdict(
        "master-down",
        "warning",
        f"{len(down)} of {len(picture.masters)} masters {'is' if len(down) == 1 else 'are'} down: claims continue, "
        f"but {more}.",
        _who_sees_down(picture),
        f"Restart {listed(down)} with its data; do not start it empty."
        if all(not row.up_at for row in picture.masters if row.down_at)
        else "Some instances reach masters that others do not: check the network between them first.",
    )


def _who_sees_down(picture: Picture) -> str:
    return " ".join(
        f"{row.name} is down for {_seen_by(picture, row.down_at)}." for row in picture.masters if row.down_at
    )


def _seen_by(picture: Picture, places: list[int]) -> str:
    speaking = len(picture.speaking)
    if len(places) == speaking:
        return "every instance" if speaking > 1 else "this instance"
    return f"{instances(picture, places)}, not for {'the other' if speaking - len(places) == 1 else 'the others'}"


def quiet(scene: Scene) -> Verdict:
    """There are no claims, although they could be made: otherwise something else is said before."""
    picture = scene.picture
    if any(not picture.instances[place].health for place in picture.speaking):
        return Verdict("quiet-unknown", "quiet", "There are no claims. Whether they could be made is being checked.")
    ready = "it is ready for them" if len(picture.speaking) == 1 else "all instances are ready for them"
    return Verdict("quiet", "quiet", f"All is quiet: there are no claims, and {ready}.", _heard(picture))


def _heard(picture: Picture) -> str:
    return f"{times(len(picture.speaking), 'instance')} heard." if picture.hears_others else ""
