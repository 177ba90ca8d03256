"""Formats names, numbers and instances for sentences."""

from collections.abc import Sequence

from claimsvc.observability.console.picture import Picture


def listed(names: Sequence[str]) -> str:
    """Join names: A; A and B; A, B and C."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1 else f"{value:.1f}"


def times(value: float, what: str) -> str:
    """Format a count with its noun: 1 claim; 3 claims."""
    return f"{value:,.0f} {what}{'' if value == 1 else 's'}"


def milliseconds(value: float) -> str:
    return f"{value / 1000:.1f} s" if value >= 1000 else f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms"


def instances(picture: Picture, places: Sequence[int]) -> str:
    """Name up to three instances; say only how many there are of more."""
    if len(places) > 3:
        return f"{len(places)} of {len(picture.instances)} instances"
    return listed([picture.instances[place].name for place in places])
