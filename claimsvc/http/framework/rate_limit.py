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
        address = address_of_client(request, services.trusted_proxies)
        standings = await quotas.take(subjects_of(inputs["body"].user_id, address))
        reply = over_quota(standings, request[REQUEST_ID]) or await handler(request, **inputs)
        reply.headers.update(quota_headers(policy_of(quotas.quotas), standings))
        return reply

    return limited


def subjects_of(user_id: str, address: str | None) -> dict[str, str]:
    """The subjects of a request, by the name of the quota.

    Args:
        user_id: the user that is claimed for.
        address: the client's; None if it is unknown, and has no quota.
    """
    return {"user": user_id} if address is None else {"user": user_id, "address": address}


def over_quota(standings: Sequence[QuotaStanding], request_id: str) -> Reply | None:
    """The refusal of a request that exceeds a quota, without the headers of `quota_headers`; None if it exceeds none.

    Args:
        standings: of the request.
        request_id: the request's id.
    """
    # Counting ends with the first that is exceeded.
    if not standings or not standings[-1].is_exceeded:
        return None
    exceeded = [each for each in standings if each.is_exceeded]
    reply = quota_exceeded([each.quota.name for each in exceeded], request_id)
    reply.headers[hdrs.RETRY_AFTER] = str(max(_whole_seconds(each) for each in exceeded))
    return reply


def policy_of(quotas: Sequence[Quota]) -> str:
    """The value of the header `RateLimit-Policy`: the configured quotas."""
    return ", ".join([f'"{each.name}";q={each.requests};w={each.seconds}' for each in quotas])


def quota_headers(policy: str, standings: Sequence[QuotaStanding]) -> dict[str, str]:
    """The headers `RateLimit-Policy` and `RateLimit`.

    Args:
        policy: see `policy_of`.
        standings: what is left of each quota; empty if they could not be read; then there is no `RateLimit`.
    """
    headers: dict[str, str] = {RATE_LIMIT_POLICY: policy}
    if standings:
        headers[RATE_LIMIT] = ", ".join(
            [f'"{each.quota.name}";r={each.remaining};t={_whole_seconds(each)}' for each in standings]
        )
    return headers


def _whole_seconds(standing: QuotaStanding) -> int:
    return max(1, math.ceil(standing.seconds))
