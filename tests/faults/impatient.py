"""The service with dead letters after a few seconds: `python -m tests.faults.impatient serve`."""

from claimsvc import domain
from claimsvc.__main__ import main
from claimsvc.postgres.tickets import dispatching as leases
from claimsvc.tickets import dispatching

MOST_TRIES = 2

if __name__ == "__main__":
    for module in (domain, leases, dispatching):
        module.MOST_TRIES = MOST_TRIES  # type: ignore[attr-defined]
    main()
