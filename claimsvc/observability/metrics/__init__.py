"""All metrics that the service exports."""

from claimsvc.observability.metrics.metered import MeteredJoins, MeteredStrategy
from claimsvc.observability.metrics.registry import Metrics
from claimsvc.observability.metrics.totals import LATENCY_BOUNDS, SLOW_SECONDS, Numbers, Totals, read_totals

__all__ = [
    "LATENCY_BOUNDS",
    "SLOW_SECONDS",
    "MeteredJoins",
    "MeteredStrategy",
    "Metrics",
    "Numbers",
    "Totals",
    "read_totals",
]
