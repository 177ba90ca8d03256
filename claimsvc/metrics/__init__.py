"""Every metric that this service exports."""

from claimsvc.metrics.metered import MeteredStrategy
from claimsvc.metrics.registry import Metrics

__all__ = ["MeteredStrategy", "Metrics"]
