"""Quotas on claiming: how they are counted, answered, and told in headers.

The headers are those of draft-ietf-httpapi-ratelimit-headers-11, and so is the problem's `violated-policies`.
"""

import math
from collections.abc import Awaitable, Callable, Sequence
from functools import wraps
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

from aiohttp import hdrs, web
from multidict import istr

from claimsvc.domain import Quota, QuotaStanding
from claimsvc.http.framework.refusals import quota_exceeded
from claimsvc.http.framework.services import SERVICES
from claimsvc.http.server.observers import REQUEST_ID
from claimsvc.http.server.response import Reply

RATE_LIMIT = istr("RateLimit")
RATE_LIMIT_POLICY = istr("RateLimit-Policy")
DOCUMENTED: dict[str, str] = {
    RATE_LIMIT: 'where quotas are set: what is left of each, as `"user";r=3;t=12`: 3 requests, and no more for 12 s',
    RATE_LIMIT_POLICY: 'where quotas are set: which, as `"user";q=10;w=60`: 10 requests within 60 s',
}

_X_FORWARDED_FOR = istr("X-Forwarded-For")
# What one client of IPv6 usually has all of.
_IPV6_PREFIX = 64

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
# It takes a `body` that has a `user_id`.
Handler = Callable[..., Awaitable[Reply]]


def within_quota(handler: Handler) -> Handler:
    """The handler, for whoever has not asked too often; where no quota is set, the handler itself."""

    @wraps(handler)
    async def limited(request: web.Request, **inputs: Any) -> Reply:
        services = request.app[SERVICES]
        quotas = services.quotas
        if quotas is None:
            return await handler(request, **inputs)
        subjects = {"user": inputs["body"].user_id}
        address = client_of(request.remote, request.headers.getall(_X_FORWARDED_FOR, ()), services.trusted_proxies)
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
    """What an answer says of the quotas; nothing of how somebody stands where that could not be learnt."""
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


def client_of(peer: str | None, forwarded: Sequence[str], trusted: Sequence[Network]) -> str | None:
    """Whose address a request counts for; None if it has none.

    Args:
        peer: the address that is connected.
        forwarded: the values of `X-Forwarded-For`. Each proxy adds who asked it to the end, so what stands before the
            first entry from there that is no proxy's is the client's word, and worth nothing.
        trusted: the networks of the proxies.
    """
    client = _address(peer or "")
    if client is None:
        return None
    entries = ",".join(forwarded).split(",") if forwarded and trusted else []
    for entry in reversed(entries):
        if not any(client in network for network in trusted):
            break
        found = _address(entry)
        if found is None:
            break
        client = found
    if isinstance(client, IPv6Address):
        return str(IPv6Network((client, _IPV6_PREFIX), strict=False))
    return str(client)


def _address(text: str) -> Address | None:
    """An address, as proxies write it: perhaps with a port, and with brackets then if it is of IPv6."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ip_address(text)
    except ValueError:
        return None
    return found.ipv4_mapped or found if isinstance(found, IPv6Address) else found
