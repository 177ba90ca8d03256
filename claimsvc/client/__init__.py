"""A client of the service, for asyncio: `ClaimClient`, what it answers, and what it raises.

Needs aiohttp and nothing else of this package's dependencies, and imports no other room of it.
"""

from claimsvc.client.client import ClaimClient as ClaimClient
from claimsvc.client.errors import *
from claimsvc.client.outcomes import *
from claimsvc.client.retries import Retries as Retries
