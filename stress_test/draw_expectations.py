"""The expectations of a queue whose order is drawn by lot: the order is recomputed from what the service publishes."""

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256

from stress_test.expectations import some
from stress_test.tickets import DrawHistory, QueueCase


def entry_of(ticket_id: str) -> str:
    """Return the entry of a ticket in a draw, in hex."""
    return sha256(ticket_id.encode()).hexdigest()


def recomputed(seed: str, entries: Iterable[str]) -> list[str]:
    """Return the entries in the order that the seed draws."""
    seed_bytes = bytes.fromhex(seed)
    return sorted(entries, key=lambda entry: sha256(seed_bytes + bytes.fromhex(entry)).digest())


def start_order(case: QueueCase) -> list[str]:
    """Return the ids of the tickets in the order in which they are to be started."""
    draw = case.tickets.draw
    if draw is None or draw.after.seed is None:
        return [each.id for each in case.seen]
    by_entry = {entry_of(each.id): each.id for each in case.seen if case.is_early(each)}
    drawn = [by_entry[entry] for entry in recomputed(draw.after.seed, by_entry)]
    return [*drawn, *(each.id for each in case.seen if not case.is_early(each))]


def seed_was_promised(_case: QueueCase, draw: DrawHistory) -> str | None:
    """Before anybody joined, the digest of the seed was published, and nothing else."""
    if draw.before.seed is not None or draw.before.entries:
        return "the seed or the entries were published before the start"
    if draw.after.seed is None:
        return "no seed was published after the start"
    if draw.before.seed_hash != draw.after.seed_hash:
        return f"the seed's digest was {draw.before.seed_hash} and became {draw.after.seed_hash}"
    if sha256(bytes.fromhex(draw.after.seed)).hexdigest() != draw.before.seed_hash:
        return f"the seed {draw.after.seed} is not the one of the digest {draw.before.seed_hash}"
    return None


def entries_are_the_early(case: QueueCase, draw: DrawHistory) -> str | None:
    """Drawn were exactly those who joined before the start, in the order that the published seed gives."""
    early = {entry_of(each.id): each.user_id for each in case.seen if case.is_early(each)}
    if not early:
        return "nobody joined before the start: give more time with --starts-in"
    if len(draw.after.entries) != len(early) or set(draw.after.entries) != early.keys():
        missing = [user for entry, user in early.items() if entry not in draw.after.entries]
        return f"entries: {len(draw.after.entries)}, joined before the start: {len(early)}; without: {some(missing)}"
    if draw.after.seed is not None and list(draw.after.entries) != recomputed(draw.after.seed, early):
        return "the order of the entries is not the one that the seed draws"
    return None


def places_are_as_drawn(case: QueueCase, draw: DrawHistory) -> str | None:
    """Those drawn had no place before the start. After it, all who still waited had the places of the draw."""
    early = {each.id for each in case.seen if case.is_early(each)}
    told = [readings[0] for id_, readings in case.tickets.readings.items() if id_ in early]
    placed = [each.user_id for each in told if each.position is not None]
    if placed:
        return f"told a place before the draw ({len(placed)}): {some(placed)}"
    position = {each.id: each.position for each in draw.places if each.state == "waiting"}
    waited = [id_ for id_ in start_order(case) if id_ in position]
    users = {each.id: each.user_id for each in case.seen}
    wrong = [users[id_] for place, id_ in enumerate(waited, 1) if position[id_] != place]
    return f"not at the place that was drawn, or behind those drawn ({len(wrong)}): {some(wrong)}" if wrong else None


DRAW_EXPECTATIONS: Sequence[Callable[[QueueCase, DrawHistory], str | None]] = (
    seed_was_promised,
    entries_are_the_early,
    places_are_as_drawn,
)
