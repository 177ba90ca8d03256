"""An asyncio client of the service: `ClaimClient`, its outcomes and its errors.

It needs only aiohttp of this package's dependencies, and imports nothing else of this package.
"""

from claimsvc.client.client import WITHOUT_TYPE as WITHOUT_TYPE
from claimsvc.client.client import ClaimClient as ClaimClient
from claimsvc.client.client import WithoutType as WithoutType
from claimsvc.client.errors import *
from claimsvc.client.outcomes import *
from claimsvc.client.retries import Retries as Retries
from claimsvc.client.tickets import AsyncClaimOutcome as AsyncClaimOutcome
from claimsvc.client.tickets import Ticket as Ticket
