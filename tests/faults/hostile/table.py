"""The bad-input table, put together.

Left for the issues that bring them: idempotency keys (409, 422), quotas (429), and tokens of users (401 for
`alg: none`, RS to HS, wrong audience; 403 for a user on an admin route).
"""

from tests.faults.hostile.bad_bodies import bodies
from tests.faults.hostile.bad_credentials import credentials
from tests.faults.hostile.bad_messages import messages
from tests.faults.hostile.bad_targets import targets

CASES = [*bodies(), *targets(), *messages(), *credentials()]
