"""Combining: the holder of a coupon's lock decides the batches of all instances.

`docs/combining.md` describes the protocol.
"""

from claimsvc.claiming.combining.combiner import Combiner, Desk, Journey

__all__ = ["Combiner", "Desk", "Journey"]
