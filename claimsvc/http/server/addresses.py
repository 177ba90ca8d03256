"""The address of a client, behind proxies too."""

from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from aiohttp import web
from multidict import CIMultiDictProxy, istr

from claimsvc.ports.clients import CLIENT

_X_FORWARDED_FOR = istr("X-Forwarded-For")
# More than stand in any row.
_MOST_PROXIES = 32
_ADDRESSES_CACHED = 1024
# The prefix that one IPv6 client usually controls.
_IPV6_PREFIX = 64

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def naming_its_client(handler: Handler, trusted: Sequence[Network]) -> Handler:
    """Wrap a handler so that what it does is done for its client; see `ports.clients`.

    Args:
        handler: answers requests.
        trusted: the networks of the trusted proxies.
    """

    async def named(request: web.Request) -> web.StreamResponse:
        CLIENT.set(address_of_client(request, trusted) or "")
        return await handler(request)

    return named


def address_of_client(request: web.Request, trusted: Sequence[Network]) -> str | None:
    """The address of a request's client; see `client_address`."""
    return address_named_in(request.remote, request.headers, trusted)


def address_named_in(peer: str | None, headers: CIMultiDictProxy[str], trusted: Sequence[Network]) -> str | None:
    """The address of the client of a request with these headers; see `client_address`."""
    return client_address(peer, headers.getall(_X_FORWARDED_FOR, ()), trusted)


def address_to_cap(peer: str | None, headers: CIMultiDictProxy[str], trusted: Sequence[Network]) -> str | None:
    """The client's address, as of `client_address`; None if it is unknown.

    It is unknown as well if the peer is a trusted proxy that names no client. A client that a proxy names is known,
    even if its own address is in the networks of the proxies.
    """
    client, is_named = _client(peer, headers.getall(_X_FORWARDED_FOR, ()), trusted)
    return None if client is None or (not is_named and _is_in(client, trusted)) else _as_text(client)


def client_address(peer: str | None, forwarded: Sequence[str], trusted: Sequence[Network]) -> str | None:
    """The client's address, for the quota; None if it is unknown. IPv6 addresses are reduced to their /64 network.

    Args:
        peer: the address at the other end of the connection.
        forwarded: the values of `X-Forwarded-For`. Each proxy appends the address of its client. So entries are read
            from the end, as long as they are trusted proxies; clients can forge all entries before that.
        trusted: the networks of the trusted proxies.
    """
    if not forwarded or not trusted:
        return _of_peer(peer or "")
    client, _ = _client(peer, forwarded, trusted)
    return None if client is None else _as_text(client)


# Looking up an address costs several times what looking up its text does.
@lru_cache(maxsize=_ADDRESSES_CACHED)
def _of_peer(peer: str) -> str | None:
    client = _address(peer)
    return None if client is None else _as_text(client)


def _client(peer: str | None, forwarded: Sequence[str], trusted: Sequence[Network]) -> tuple[Address | None, bool]:
    """The client's address, and whether a trusted proxy has named it."""
    client, is_named = _address(peer or ""), False
    if client is None:
        return None, False
    # From the end, so that the cost of a long header does not depend on its length.
    entries = ",".join(forwarded).rsplit(",", _MOST_PROXIES)[-_MOST_PROXIES:] if forwarded and trusted else []
    for entry in reversed(entries):
        if not _is_in(client, trusted):
            break
        found = _address(entry)
        if found is None:
            break
        client, is_named = found, True
    return client, is_named


def _is_in(client: Address, trusted: Sequence[Network]) -> bool:
    return any(client in network for network in trusted)


# Parsing costs several times what looking up does, and a client usually sends more than one request.
@lru_cache(maxsize=_ADDRESSES_CACHED)
def _as_text(client: Address) -> str:
    if isinstance(client, IPv6Address):
        return str(IPv6Network((client, _IPV6_PREFIX), strict=False))
    return str(client)


@lru_cache(maxsize=_ADDRESSES_CACHED)
def _address(text: str) -> Address | None:
    """Parse an address as proxies write it: `192.0.2.1`, `192.0.2.1:443`, `2001:db8::1` or `[2001:db8::1]:443`."""
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
