"""What taking locks comes to, one or several: the protocol of `single` and `group`, which exclude each other."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from claimsvc.errors import UnavailableError
from claimsvc.scripts import Script


@dataclass(frozen=True, slots=True)
class GivenBack:
    """Which locks were not ours any more when they were given back, and for which another instance was woken."""

    lost: Sequence[str]
    woken: Sequence[str]


take = Script("lock_take.lua")
release = Script("lock_release.lua")


class Acquisition(Protocol):
    """One try to take locks, under a token of its own: it is never tried twice."""

    coupon_names: Sequence[str]

    async def take(self) -> Sequence[str]:
        """Ask every master once. Returns the names whose locks are ours now; nothing is left behind of the others.

        Raises:
            UnavailableError: a majority of the masters does not answer.
        """
        ...

    async def give_back(self, coupon_names: Sequence[str]) -> GivenBack:
        """Give these locks back, as far as they are ours, and wake who waits for them.

        Raises:
            UnavailableError: a majority of the masters does not answer; the locks expire by themselves.
        """
        ...


def masters_are_gone() -> UnavailableError:
    return UnavailableError("a majority of the lock's masters does not answer", dependency="redis")
