"""The ways to admit a claim, one file each."""

from claimsvc.strategies.redlock import RedlockStrategy

__all__ = ["RedlockStrategy"]
