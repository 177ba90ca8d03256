"""Combining: the holder of a coupon's lock decides the batches of all instances.

`docs/combining.md` describes the protocol.
"""

from claimsvc.claiming.combining.combiner import ANSWER_SECONDS, Combiner, Desk, Journey

__all__ = ["ANSWER_SECONDS", "Combiner", "Desk", "Journey"]
