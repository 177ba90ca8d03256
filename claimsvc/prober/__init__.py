"""The prober: makes a claim as a user would, from outside, to find out whether claiming works."""

from claimsvc.prober.probe import COUPON, Probe, Prober, Verdict
from claimsvc.prober.repeated import ProbeMetrics, in_words, probe_repeatedly

__all__ = ["COUPON", "Probe", "ProbeMetrics", "Prober", "Verdict", "in_words", "probe_repeatedly"]
