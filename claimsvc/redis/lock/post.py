"""`ports.Post` on the masters: each instance has the list `claim:inbox:<instance>`, and blocks on it.

A batch is handed over on one master, selected by the coupon's name, in the script that reads who holds the lock there.
Its answer comes back by the same master.
"""

import contextlib
from collections.abc import Sequence

from redis.exceptions import RedisError

from claimsvc.ports import HandOver, Mailbox
from claimsvc.redis.lock.identity import key_of
from claimsvc.redis.masters import Master, place_of
from claimsvc.redis.scripts import Script

_hand = Script("lock_hand.lua")
_answer = Script("lock_answer.lua")

# Longer than any instance waits for an answer.
_KEPT_MILLISECONDS = 5000
# Messages for one instance that wait on a master. More show that it does not read them.
_MOST_WAITING = 1000


class MasterPost:
    """`ports.Post`. `received` is called by the tasks that listen to the masters.

    Args:
        instance: the name of this instance.
        masters: all masters, in the same order in every instance.
    """

    def __init__(self, instance: str, masters: Sequence[Master]) -> None:
        self._instance = instance
        self._masters = tuple(masters)
        self._mailbox: Mailbox | None = None

    def deliver_to(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox

    def received(self, master: Master, message: bytes) -> None:
        """Deliver a message that arrived on a master. The first line is the instance that sent it."""
        sender, _, content = message.partition(b"\n")
        if self._mailbox is None:
            return

        async def answer(content: bytes) -> None:
            with contextlib.suppress(RedisError):
                await _answer(master, [inbox_of(sender.decode())], self._addressed(content), _KEPT_MILLISECONDS)

        self._mailbox.arrived(sender.decode(), content, answer)

    def invited(self, coupon_name: str) -> None:
        """Tell that this instance was woken to take a lock, though it does not wait for it."""
        if self._mailbox is not None:
            self._mailbox.invited(coupon_name)

    async def hand(self, coupon_name: str, message: bytes) -> HandOver:
        master = self._masters[place_of(coupon_name, len(self._masters))]
        try:
            state = await _hand(
                master,
                [key_of(coupon_name)],
                self._addressed(message),
                self._instance,
                _KEPT_MILLISECONDS,
                _MOST_WAITING,
            )
        except RedisError:
            return HandOver.UNKNOWN
        return HandOver(state.decode())

    def _addressed(self, message: bytes) -> bytes:
        return b"%b\n%b" % (self._instance.encode(), message)


def inbox_of(instance: str) -> str:
    """Return the key of an instance's inbox."""
    return f"claim:inbox:{instance}"
