"""The service whose messages to other instances are lost, doubled and late, as they arrive.

`python -m tests.faults.unreliable_post serve`. Batches are hurt, and answers.
"""

import asyncio
import random
from typing import Any

from claimsvc.__main__ import main
from claimsvc.redis.lock.post import MasterPost

_LOST, _DOUBLED, _LATE = 0.03, 0.06, 0.06
# Longer than an origin waits, and longer than a claim lives.
_LATE_SECONDS = 4.0


def hurt_messages() -> None:
    """Patch how messages are received."""
    received = MasterPost._received

    def receive(self: MasterPost, *message: Any) -> None:
        chance = random.random()
        if chance < _LOST:
            return
        if chance < _LOST + _DOUBLED + _LATE:
            asyncio.get_running_loop().call_later(random.uniform(0, _LATE_SECONDS), received, self, *message)
        if chance < _LOST + _DOUBLED or chance >= _LOST + _DOUBLED + _LATE:
            received(self, *message)

    MasterPost._received = receive  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    hurt_messages()
    main()
