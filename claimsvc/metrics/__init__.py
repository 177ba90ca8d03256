"""Every metric that this service exports."""

from claimsvc.metrics.metered import MeteredStrategy
from claimsvc.metrics.registry import Metrics
from claimsvc.metrics.totals import LATENCY_BOUNDS, Numbers, Totals, read_totals

__all__ = ["LATENCY_BOUNDS", "MeteredStrategy", "Metrics", "Numbers", "Totals", "read_totals"]
