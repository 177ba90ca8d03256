"""The console's live picture: the figures of all instances, merged and sent to viewers several times a second."""

from claimsvc.observability.console.hub import Live, Viewer
from claimsvc.observability.console.picture import StressTest

__all__ = ["Live", "StressTest", "Viewer"]
