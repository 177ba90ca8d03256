"""Checks of single settings. Each raises `ValueError` with what the value should be, and never repeats a secret."""

import re
from ipaddress import ip_network
from typing import Any
from urllib.parse import SplitResult, urlsplit

from pydantic import ValidationInfo

from claimsvc.domain import Quota

_ORIGIN = re.compile(r"(https?)://(?:[a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::([1-9][0-9]{0,4}))?", re.ASCII)
_HOST = re.compile(r"(?:[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(?::[1-9][0-9]{0,4})?", re.ASCII)
# Browsers leave these ports out.
_PORT_OF = {"http": "80", "https": "443"}
_SHA256_HEX = re.compile(r"[0-9a-f]{64}", re.ASCII)


def split_commas(value: Any) -> Any:
    return tuple(part for part in (p.strip() for p in value.split(",")) if part) if isinstance(value, str) else value


def _split_url(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        # urllib's message is not passed on: if a password contains `/`, it quotes the part before it.
        raise ValueError(
            "not a URL: the port is a number up to 65535, and a password has / ? # @ : % as %2F %3F %23 %40 %3A %25"
        ) from None
    return parts


def check_database_url(url: str) -> str:
    parts = _split_url(url)
    if parts.scheme not in {"postgresql", "postgres", "postgresql+psycopg"} or not parts.path.strip("/"):
        raise ValueError("must look like postgresql://user:password@host:5432/database")
    return "postgresql+psycopg://" + url.split("://", 1)[1]


def _check_redis_options(url: str) -> None:
    # Imported here because it takes long, and commands that use PostgreSQL only do not need it.
    from redis.asyncio import ConnectionPool

    try:
        ConnectionPool.from_url(url).make_connection()  # type: ignore[no-untyped-call] # connects to nothing yet
    except (TypeError, ValueError):
        raise ValueError("the part after `?` must be options of redis-py's connections") from None


def check_redis_urls(urls: tuple[str, ...]) -> tuple[str, ...]:
    seen: dict[tuple[str, int], str] = {}
    for url in urls:
        parts = _split_url(url)
        if parts.scheme not in {"redis", "rediss"} or not parts.hostname or not re.fullmatch(r"/?\d*", parts.path):
            raise ValueError("each must look like redis://host:6379/0, several separated by commas")
        _check_redis_options(url)
        # Two databases of one server are one failure domain: to a Redlock they are the same master.
        place = (parts.hostname.lower(), parts.port or 6379)
        if place in seen:
            raise ValueError(
                f"{place[0]}:{place[1]} is listed twice; a Redlock needs independent masters, so list each once"
            )
        seen[place] = url
    if len(urls) % 2 == 0:
        raise ValueError(
            f"{len(urls)} masters are listed; a Redlock needs an odd number (1, 3 or 5), because an even one "
            "tolerates no more failures than one less"
        )
    return urls


def check_admin_keys(digests: tuple[str, ...]) -> tuple[str, ...]:
    for digest in digests:
        if not _SHA256_HEX.fullmatch(digest):
            raise ValueError(
                "each must be the SHA-256 of a key in 64 lower-case hex digits, never the key itself; "
                "`claimsvc key create --digest-only` makes both"
            )
    return digests


def check_admin_port(port: int | None, info: ValidationInfo) -> int | None:
    if port and port == info.data.get("port"):
        raise ValueError(f"must differ from CLAIMSVC_PORT, which is {port} too")
    return port


def check_tracing_url(url: str | None) -> str | None:
    if url is not None and (_split_url(url).scheme not in {"http", "https"} or not _split_url(url).hostname):
        raise ValueError("must look like http://collector:4318/v1/traces")
    return url


def check_jwks(source: str | None) -> str | None:
    if source is None or "://" not in source:
        return source
    parts = _split_url(source)
    # An attacker who can change the set in transit can sign any token.
    if parts.scheme == "https" and parts.hostname:
        return source
    if parts.scheme == "http" and parts.hostname in {"localhost", "127.0.0.1", "::1"}:
        return source
    raise ValueError("must be a file, or look like https://issuer.example/keys.json")


def check_goes_with_jwks(value: str | None, info: ValidationInfo) -> str | None:
    if (value is None) != (info.data.get("jwt_jwks") is None) and "jwt_jwks" in info.data:
        raise ValueError("must be set if CLAIMSVC_JWT_JWKS is set, and only then")
    return value


def check_quota(text: str | None) -> str | None:
    if text is not None:
        Quota.parse("", text)
    return text


def parse_networks(value: Any) -> Any:
    try:
        return tuple(ip_network(part) for part in split_commas(value))
    except (TypeError, ValueError):
        raise ValueError(
            "each must look like 10.0.0.7, 10.0.0.0/8 or fd00::/8 (with no bits set beyond the prefix), separated by "
            "commas"
        ) from None


def check_origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    for origin in origins:
        parts = _ORIGIN.fullmatch(origin)
        if origin != "*" and (parts is None or parts[2] == _PORT_OF[parts[1]]):
            raise ValueError(
                "each must look like https://shop.example or http://localhost:3000: in lower case, without a path, a "
                "slash at the end, or the default port; or be * for all"
            )
    return origins


def check_hosts(hosts: tuple[str, ...]) -> tuple[str, ...]:
    for host in hosts:
        if not _HOST.fullmatch(host):
            raise ValueError(
                "each must be a host, such as app, app.example:8080 or [::1]:8080, without scheme and path"
            )
    return tuple(host.lower() for host in hosts)
