"""What happens now, in all instances together, for whoever watches the console."""

from claimsvc.observability.console.hub import Live, Viewer
from claimsvc.observability.console.picture import StressTest

__all__ = ["Live", "StressTest", "Viewer"]
