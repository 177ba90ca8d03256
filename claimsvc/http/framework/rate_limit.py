"""Quotas on claiming.

The headers `RateLimit` and `RateLimit-Policy`, and the problem's member `violated-policies`, are those of
draft-ietf-httpapi-ratelimit-headers-11.
"""

import math
from collections.abc import Awaitable, Callable, Sequence
from functools import wraps
from typing import Any

from aiohttp import hdrs, web
from multidict import istr

from claimsvc.domain import Quota, QuotaStanding
from claimsvc.http.framework.refusals import quota_exceeded
from claimsvc.http.framework.services import SERVICES
from claimsvc.http.server.addresses import address_of_client
from claimsvc.http.server.observers import REQUEST_ID
from claimsvc.http.server.response import Reply

RATE_LIMIT = istr("RateLimit")
RATE_LIMIT_POLICY = istr("RateLimit-Policy")
DOCUMENTED: dict[str, str] = {
    RATE_LIMIT: 'if quotas are configured: what is left of each; `"user";r=3;t=12` means 3 requests in the next 12 s',
    RATE_LIMIT_POLICY: 'if quotas are configured: each quota; `"user";q=10;w=60` means 10 requests in 60 s',
}

# A handler with a parameter `body` that has a `user_id`.
Handler = Callable[..., Awaitable[Reply]]


def within_quota(handler: Handler) -> Handler:
    """Limit a handler by the configured quotas, of the user and of the client's address.

    A request that exceeds a quota is answered with the problem `quota-exceeded`. If quotas are configured, every
    response has the headers of `quota_headers`.
    """

    @wraps(handler)
    async def limited(request: web.Request, **inputs: Any) -> Reply:
        services = request.app[SERVICES]
        quotas = services.quotas
        if quotas is None:
            return await handler(request, **inputs)
        subjects = {"user": inputs["body"].user_id}
        address = address_of_client(request, services.trusted_proxies)
        if address is not None:
            subjects["address"] = address
        standings = await quotas.take(subjects)
        exceeded = [each for each in standings if each.is_exceeded]
        reply = _refusal(exceeded, request[REQUEST_ID]) if exceeded else await handler(request, **inputs)
        reply.headers.update(quota_headers(quotas.quotas, standings))
        return reply

    return limited


def _refusal(exceeded: Sequence[QuotaStanding], request_id: str) -> Reply:
    names = [each.quota.name for each in exceeded]
    reply = quota_exceeded(names, request_id)
    reply.headers[hdrs.RETRY_AFTER] = str(max(_whole_seconds(each) for each in exceeded))
    return reply


def quota_headers(quotas: Sequence[Quota], standings: Sequence[QuotaStanding]) -> dict[str, str]:
    """The headers `RateLimit-Policy` and `RateLimit`.

    Args:
        quotas: the configured quotas.
        standings: what is left of each; empty if they could not be read; then there is no `RateLimit`.
    """
    headers: dict[str, str] = {
        RATE_LIMIT_POLICY: ", ".join(f'"{each.name}";q={each.requests};w={each.seconds}' for each in quotas)
    }
    if standings:
        headers[RATE_LIMIT] = ", ".join(
            f'"{each.quota.name}";r={each.remaining};t={_whole_seconds(each)}' for each in standings
        )
    return headers


def _whole_seconds(standing: QuotaStanding) -> int:
    return max(1, math.ceil(standing.seconds))
