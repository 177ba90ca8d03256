"""Reports of purging and of erasing a user."""

from dataclasses import dataclass, fields


@dataclass(slots=True)
class PurgeReport:
    """Numbers of removed rows: stored answers, entries of lists, coupons with their claims and codes, and tickets.

    Tickets of a removed coupon that have not ended are ended, not removed.
    """

    answers: int = 0
    list_entries: int = 0
    coupons: int = 0
    claims: int = 0
    codes: int = 0
    tickets: int = 0
    unfinished_tickets: int = 0

    @property
    def rows(self) -> int:
        """The number of all rows."""
        return sum(getattr(self, each.name) for each in fields(self))

    def add(self, other: "PurgeReport") -> None:
        """Add the numbers of another report."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))


@dataclass(slots=True)
class Erased:
    """A user was erased: the numbers of rows that named the user, and the pseudonym that they now have."""

    erased_as: str
    coupons: int = 0
    claims: int = 0
    list_entries: int = 0
    answers: int = 0
    tickets: int = 0
