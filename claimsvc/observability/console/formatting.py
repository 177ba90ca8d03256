"""Formats names, numbers and instances for sentences."""

import math
from collections.abc import Sequence

from claimsvc.observability.console.picture import Picture


def listed(names: Sequence[str]) -> str:
    """Join names: A; A and B; A, B and C."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def number(value: float) -> str:
    """Format a rate as the page does: whole from ten on, else with one digit if it has any."""
    return _rounded(value, 0 if value >= 10 else 1)


def percent(share: float, digits: int = 0) -> str:
    """Format a share as the page does: 67 %; with digits, as many as it has, at most: 0.1 %."""
    return f"{_rounded(100 * share, digits)} %"


def times(value: float, what: str) -> str:
    """Format a count with its noun: 1 claim; 3 claims."""
    return f"{value:,.0f} {what}{'' if value == 1 else 's'}"


def milliseconds(value: float) -> str:
    """Format milliseconds as the page does."""
    if value >= 1000:
        return f"{_rounded(value / 1000, 1)} s"
    return f"{_rounded(value, 0 if value >= 10 else 1)} ms"


def _rounded(value: float, digits: int) -> str:
    """Round halves up, as browsers do, and leave out a last zero: a sentence and its row have the same figures."""
    factor = 10**digits
    whole = math.floor(value * factor + 0.5) / factor
    return f"{whole:,.{digits}f}".rstrip("0").rstrip(".") if digits else f"{whole:,.0f}"


def instances(picture: Picture, places: Sequence[int]) -> str:
    """Name up to three instances; say only how many there are of more."""
    if len(places) > 3:
        return f"{len(places)} of {len(picture.instances)} instances"
    return listed([picture.instances[place].name for place in places])
