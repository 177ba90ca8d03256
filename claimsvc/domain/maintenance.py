"""What those have to report who keep the database in order, or forget somebody."""

from dataclasses import dataclass, fields


@dataclass(slots=True)
class PurgeReport:
    """Rows that were removed: answers kept under a key, entries of lists, and coupons with their claims and codes."""

    answers: int = 0
    list_entries: int = 0
    coupons: int = 0
    claims: int = 0
    codes: int = 0

    @property
    def rows(self) -> int:
        """All of them together."""
        return sum(getattr(self, each.name) for each in fields(self))

    def add(self, other: "PurgeReport") -> None:
        """Count what another has removed, too."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))


@dataclass(slots=True)
class Erased:
    """A user was forgotten: how many rows named it, and the name that its claims have instead."""

    erased_as: str
    coupons: int = 0
    claims: int = 0
    list_entries: int = 0
    answers: int = 0
