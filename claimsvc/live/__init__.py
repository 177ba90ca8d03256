"""What happens now, in all instances together, for whoever watches the console."""

from claimsvc.live.hub import Live, Viewer
from claimsvc.live.picture import StressTest

__all__ = ["Live", "StressTest", "Viewer"]
