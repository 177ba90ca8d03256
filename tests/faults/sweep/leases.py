"""How long the leases of tickets last in the sweep."""

# One that nobody ends is no longer than a lock.
SHORT_LEASE_SECONDS = 1.0
