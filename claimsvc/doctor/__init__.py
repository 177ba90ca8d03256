"""Checks everything that the service needs, and says in a line each what is wrong and how to mend it.

Each check runs whatever the others find, and has a limit in time. What a server says of itself is gathered first; what
that means is judged in plain functions.
"""

from claimsvc.doctor.examination import examine, examine_database
from claimsvc.doctor.findings import Finding, Level

__all__ = ["Finding", "Level", "examine", "examine_database"]
