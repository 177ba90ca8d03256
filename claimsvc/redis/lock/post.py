"""`ports.Post` on the masters: each instance subscribes to the channel `claim:inbox:<instance>`.

A batch is handed over on one master, the first of those that are up in an order that the coupon's name selects, in the
script that reads who holds the lock there. Its answer comes back by the same master.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from claimsvc.background import in_background
from claimsvc.ports import HandOver, Mailbox
from claimsvc.redis.lock.identity import key_of
from claimsvc.redis.masters import Master, place_of
from claimsvc.redis.scripts import Script
from claimsvc.redis.wire import Wire

_hand = Script("lock_hand.lua")


class MasterPost:
    """`ports.Post`.

    Args:
        instance: the name of this instance.
        masters: all masters, in the same order in every instance.
    """

    def __init__(self, instance: str, masters: Sequence[Master]) -> None:
        self._instance = instance
        self._mailbox: Mailbox | None = None
        self._wires = [Wire(master) for master in masters]
        self._inboxes = [
            Wire(master, _inbox_of(instance), partial(self._received, wire))
            for master, wire in zip(masters, self._wires, strict=True)
        ]

    def deliver_to(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox

    def invited(self, coupon_name: str) -> None:
        """Tell that this instance was woken to take a lock, though it does not wait for it."""
        if self._mailbox is not None:
            self._mailbox.invited(coupon_name)

    async def hand(self, coupon_name: str, message: bytes) -> HandOver:
        first = place_of(coupon_name, len(self._wires))
        wire = next((each for each in self._wires[first:] + self._wires[:first] if each.is_open), None)
        if wire is None:
            return HandOver.HELD
        try:
            state = await wire.run_script(_hand, [key_of(coupon_name)], self._addressed(message), self._instance)
        except RedisConnectionError:
            return HandOver.UNKNOWN
        except RedisError:
            return HandOver.HELD
        return HandOver(state.decode())

    def wires(self) -> Sequence[Wire]:
        """Return the connections that must run."""
        return [*self._wires, *self._inboxes]

    def _received(self, wire: Wire, message: bytes) -> None:
        """Deliver a message. The first line is the instance that sent it."""
        sender, _, content = message.partition(b"\n")
        if self._mailbox is not None:
            self._mailbox.arrived(sender.decode(), content, partial(self._answer, wire, sender.decode()))

    def _answer(self, wire: Wire, instance: str, message: bytes) -> None:
        wire.send_only("PUBLISH", _inbox_of(instance), self._addressed(message))

    def _addressed(self, message: bytes) -> bytes:
        return b"%b\n%b" % (self._instance.encode(), message)


@asynccontextmanager
async def open_post(instance: str, masters: Sequence[Master]) -> AsyncIterator[MasterPost]:
    """Open the post of an instance; its connections are kept until the context is left."""
    post = MasterPost(instance, masters)
    async with in_background(*(wire.run() for wire in post.wires())):
        yield post


def _inbox_of(instance: str) -> str:
    return f"claim:inbox:{instance}"
