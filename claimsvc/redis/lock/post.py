"""`ports.Post` on the masters: each instance has the list `claim:inbox:<instance>`, and blocks on it.

A batch is handed over on one master, selected by the coupon's name, in the script that reads who holds the lock there.
Its answer comes back by the same master.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from redis.exceptions import RedisError

from claimsvc.ports.combining import Deliver, Parcel, Sender
from claimsvc.redis.lock.identity import key_of
from claimsvc.redis.masters import Master, place_of
from claimsvc.redis.scripts import Script

_hand = Script("lock_hand.lua")
_answer = Script("lock_answer.lua")

# Longer than any instance waits for an answer.
_KEPT_MILLISECONDS = 5000
_MOST_WAITING = 1000


@dataclass(frozen=True, slots=True)
class _Parcel:
    """`ports.Parcel`."""

    holder: str
    master: Master
    message: bytes

    async def withdraw(self) -> bool:
        try:
            return bool(self.holder and await self.master.lrem(inbox_of(self.holder), 1, self.message))  # type: ignore[arg-type]
        except RedisError:
            return False


class MasterPost:
    """`ports.Post`. `received` is called by the tasks that listen to the masters.

    Args:
        masters: all masters, in the same order in every instance.
    """

    def __init__(self, masters: Sequence[Master]) -> None:
        self._masters = tuple(masters)
        self._deliver: Deliver | None = None

    def deliver_to(self, deliver: Deliver) -> None:
        self._deliver = deliver

    def received(self, master: Master, message: bytes) -> None:
        """Deliver a message that arrived on a master."""
        if self._deliver is not None:
            self._deliver(master, message)

    async def hand(self, coupon_name: str, message: bytes) -> Parcel | None:
        master = self._masters[place_of(coupon_name, len(self._masters))]
        try:
            holder = await _hand(master, [key_of(coupon_name)], message, _KEPT_MILLISECONDS, _MOST_WAITING)
        except RedisError:
            # It may have arrived, so it is withdrawn: unless that is certain, a holder may decide it.
            return _Parcel("", master, message)
        return _Parcel(holder.decode(), master, message) if holder else None

    async def answer(self, sender: Sender, instance: str, message: bytes) -> None:
        with contextlib.suppress(RedisError):
            await _answer(cast("Master", sender), [inbox_of(instance)], message, _KEPT_MILLISECONDS)


def inbox_of(instance: str) -> str:
    """Return the key of an instance's inbox."""
    return f"claim:inbox:{instance}"
