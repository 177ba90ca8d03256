"""The bad-input table, put together.

What a key refuses that was used before (422) is in tests/http, and quotas (429) are in tests/redis/rate_limiter: both
need something to have happened. Left for the issue that brings them: tokens of users (401 for `alg: none`, RS to HS,
wrong audience; 403 for a user on an admin route).
"""

from tests.faults.hostile.bad_bodies import bodies
from tests.faults.hostile.bad_credentials import credentials
from tests.faults.hostile.bad_lives import lives
from tests.faults.hostile.bad_messages import messages
from tests.faults.hostile.bad_targets import targets

CASES = [*bodies(), *targets(), *messages(), *credentials(), *lives()]
