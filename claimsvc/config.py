"""Settings: every `CLAIMSVC_*` variable, its default and its check. The environment is read here and nowhere else."""

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, ValidationInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from claimsvc.domain import Quota
from claimsvc.errors import SettingsError

_SHA256_HEX = re.compile(r"[0-9a-f]{64}", re.ASCII)

# A claim's answer must come within the lock's life by a wide margin, so the lock may not be shorter than this.
_SHORTEST_LOCK_TTL_SECONDS = 1.0


def _split_commas(value: Any) -> Any:
    return tuple(part for part in (p.strip() for p in value.split(",")) if part) if isinstance(value, str) else value


def _split_url(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        # Not in urllib's words: where a password has a `/` in it, they would name what comes before that.
        raise ValueError(
            "not a URL: the port is a number up to 65535, and a password has / ? # @ : % as %2F %3F %23 %40 %3A %25"
        ) from None
    return parts


def _check_database_url(url: str) -> str:
    parts = _split_url(url)
    if parts.scheme not in {"postgresql", "postgres", "postgresql+psycopg"} or not parts.path.strip("/"):
        raise ValueError("must look like postgresql://user:password@host:5432/database")
    return "postgresql+psycopg://" + url.split("://", 1)[1]


def _check_redis_options(url: str) -> None:
    # Imported here: it takes longer than the rest of a command's start, and commands on the database alone need none.
    from redis.asyncio import ConnectionPool

    try:
        ConnectionPool.from_url(url).make_connection()  # type: ignore[no-untyped-call] # connects to nothing yet
    except (TypeError, ValueError):
        raise ValueError("what follows the `?` must be options of redis-py's connections") from None


def _check_redis_urls(urls: tuple[str, ...]) -> tuple[str, ...]:
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
                f"{place[0]}:{place[1]} is named twice; a Redlock needs independent masters, so name each once"
            )
        seen[place] = url
    if len(urls) % 2 == 0:
        raise ValueError(
            f"{len(urls)} masters were given; a Redlock needs an odd number (1, 3 or 5), because an even one "
            "tolerates no more failures than one less"
        )
    return urls


def _check_admin_keys(digests: tuple[str, ...]) -> tuple[str, ...]:
    for digest in digests:
        if not _SHA256_HEX.fullmatch(digest):
            raise ValueError(
                "each must be the SHA-256 of a key in 64 lower-case hex digits, never the key itself; "
                "`claimsvc key create --digest-only` makes both"
            )
    return digests


def _check_tracing_url(url: str | None) -> str | None:
    if url is not None and (_split_url(url).scheme not in {"http", "https"} or not _split_url(url).hostname):
        raise ValueError("must look like http://collector:4318/v1/traces")
    return url


def _check_jwks(source: str | None) -> str | None:
    if source is None or "://" not in source:
        return source
    parts = _split_url(source)
    # Whoever can change the set on its way can sign what it likes.
    if parts.scheme == "https" and parts.hostname:
        return source
    if parts.scheme == "http" and parts.hostname in {"localhost", "127.0.0.1", "::1"}:
        return source
    raise ValueError("must be a file, or look like https://issuer.example/keys.json")


def _check_goes_with_jwks(value: str | None, info: ValidationInfo) -> str | None:
    if (value is None) != (info.data.get("jwt_jwks") is None) and "jwt_jwks" in info.data:
        raise ValueError("is set where CLAIMSVC_JWT_JWKS is, and only there")
    return value


def _check_quota(text: str | None) -> str | None:
    if text is not None:
        Quota.parse("", text)
    return text


def _parse_networks(value: Any) -> Any:
    try:
        return tuple(ip_network(part) for part in _split_commas(value))
    except (TypeError, ValueError):
        raise ValueError(
            "each must look like 10.0.0.7, 10.0.0.0/8 or fd00::/8 (no bit set beyond the prefix), separated by commas"
        ) from None


_QuotaText = Annotated[str | None, BeforeValidator(lambda text: text or None), AfterValidator(_check_quota)]


class DatabaseSettings(BaseSettings):
    """How PostgreSQL is reached. Frozen: read once at start and handed down."""

    model_config = SettingsConfigDict(env_prefix="CLAIMSVC_", frozen=True, extra="ignore", hide_input_in_errors=True)

    database_url: Annotated[str, AfterValidator(_check_database_url)] = Field(
        description="PostgreSQL 14 or newer, as postgresql://user:password@host:5432/database", repr=False
    )
    database_pool_size: int = Field(10, ge=1, le=1000, description="connections to PostgreSQL")
    database_pool_timeout_seconds: float = Field(2.0, gt=0, le=60, description="longest wait for one of them")
    database_connect_timeout_seconds: int = Field(3, ge=1, le=60, description="longest wait for a new one")
    database_statement_timeout_seconds: float = Field(3.0, gt=0, le=60, description="longest statement")
    database_lock_timeout_seconds: float = Field(2.0, gt=0, le=60, description="longest wait for a row lock")
    database_idle_in_transaction_timeout_seconds: float = Field(
        5.0, gt=0, le=60, description="when PostgreSQL ends a transaction whose process has stalled"
    )


class Settings(DatabaseSettings):
    """How this instance runs."""

    redis_urls: Annotated[
        tuple[str, ...], NoDecode, BeforeValidator(_split_commas), AfterValidator(_check_redis_urls)
    ] = Field(
        description="the independent Redis (or Valkey) masters of the lock, an odd number, separated by commas",
        repr=False,
    )
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8080, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    workers: int = Field(1, ge=1, le=64, description="processes that share the port")
    admin_keys: Annotated[
        tuple[str, ...], NoDecode, BeforeValidator(_split_commas), AfterValidator(_check_admin_keys)
    ] = Field(
        (),
        description="SHA-256 digests of keys that may do everything, separated by commas",
        repr=False,
    )

    jwt_jwks: Annotated[str | None, BeforeValidator(lambda source: source or None), AfterValidator(_check_jwks)] = (
        Field(
            None,
            description="keys of users' tokens, a JSON Web Key Set: a file, or an https address; none: all may claim",
        )
    )
    jwt_issuer: Annotated[
        str | None, BeforeValidator(lambda name: name or None), AfterValidator(_check_goes_with_jwks)
    ] = Field(None, validate_default=True, description="who makes users' tokens: their `iss`")
    jwt_audience: Annotated[
        str | None, BeforeValidator(lambda name: name or None), AfterValidator(_check_goes_with_jwks)
    ] = Field(
        None, validate_default=True, description="whom users' tokens are for: their `aud` is this, or contains it"
    )

    lock_ttl_seconds: float = Field(
        20.0, ge=_SHORTEST_LOCK_TTL_SECONDS, le=300, description="life of a lock that nobody gives back"
    )
    lock_retries: int = Field(3, ge=0, le=100, description="attempts after the first, before `lock-busy`")
    lock_retry_wait_seconds: float = Field(0.5, gt=0, le=10, description="pause between two attempts")
    lock_slice_seconds: float = Field(
        0.0025,
        gt=0,
        le=5,
        description="how long a lock is kept while claims keep coming, before others get a turn",
    )
    redis_timeout_seconds: float = Field(
        0.5, gt=0, le=10, description="longest wait for a master to connect or to answer"
    )
    redis_pool_size: int = Field(32, ge=1, le=10_000, description="connections to each master")

    claim_patience_seconds: float = Field(
        5.0, gt=0, le=60, description="longest wait of a claim for anything but the lock"
    )
    claim_timeout_seconds: float = Field(
        10.0, gt=0, le=300, description="longest wait of a claim in all; its outcome may then still be open"
    )
    reconcile_seconds: float = Field(
        60.0, gt=0, le=86_400, description="pause between two passes that compare counters with PostgreSQL"
    )
    sweep_seconds: float = Field(
        1.0, gt=0, le=3600, description="pause between two passes that give back the units of holds that are over"
    )
    purge_seconds: float = Field(
        3600.0, gt=0, le=86_400, description="pause between two passes that remove what nobody asks for any more"
    )
    purge_after_days: int = Field(
        0,
        ge=0,
        le=36_500,
        description="days after which a coupon that ended or was archived is removed, claims and all; 0 is never",
    )
    batch_size: int = Field(256, ge=1, le=10_000, description="most claims of one coupon that a transaction admits")
    claims_waiting_limit: int = Field(
        10_000, ge=1, le=1_000_000, description="most claims that may wait in this process; more are refused"
    )

    body_timeout_seconds: float = Field(10.0, gt=0, le=300, description="longest wait for a request's body")
    header_timeout_seconds: float = Field(10.0, gt=0, le=300, description="longest wait for a request's headers")
    write_timeout_seconds: float = Field(
        10.0, gt=0, le=300, description="longest wait for a client to take any of its answer"
    )
    shutdown_grace_seconds: float = Field(
        30.0, gt=0, le=600, description="time for accepted requests to finish after SIGTERM"
    )
    shutdown_farewell_seconds: float = Field(
        1.0,
        ge=0,
        le=60,
        description="time after SIGTERM for connections at rest to be told; longer than load balancers take to notice",
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least severe line shown")
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="`auto` is for people on a terminal, JSON elsewhere"
    )
    log_requests_per_second: int = Field(
        1000,
        ge=0,
        le=1_000_000,
        description="requests answered as they should be that all get a log line; beyond them one in 100 does",
    )
    tracing_url: Annotated[str | None, BeforeValidator(lambda url: url or None), AfterValidator(_check_tracing_url)] = (
        Field(
            None,
            repr=False,
            description="where traces are sent, as http://collector:4318/v1/traces; needs `claimsvc[tracing]`",
        )
    )
    traces_per_second: int = Field(100, ge=0, le=1_000_000, description="most claims that each worker traces")

    quota_user: _QuotaText = Field(
        None, description="how often each user may ask for a claim, as 10/60 for 10 requests within 60 seconds"
    )
    quota_address: _QuotaText = Field(
        None, description="how often each client's address may ask for a claim, likewise; of IPv6 each /64"
    )
    trusted_proxies: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode, BeforeValidator(_parse_networks)] = (
        Field(
            (),
            description="networks of the proxies whose X-Forwarded-For tells a client's address, separated by commas",
        )
    )

    failpoints: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_commas)] = Field(
        (), description="for the fault suite alone: where this process fails on purpose; see `claimsvc/failpoints.py`"
    )

    def quotas(self) -> tuple[Quota, ...]:
        """Those that are set. That of the address comes first, so that nobody fills the masters with made-up users."""
        texts = {"address": self.quota_address, "user": self.quota_user}
        return tuple(Quota.parse(name, text) for name, text in texts.items() if text is not None)


def load_settings(**overrides: Any) -> Settings:
    """Read the settings from the environment; `overrides` (from the command line, None is no override) win.

    Raises:
        SettingsError: one line for each variable that is missing or wrong, saying what it should be.
    """
    return _load(Settings, overrides)


def load_database_settings() -> DatabaseSettings:
    """Read only what a command needs that works on the database alone. Raises as `load_settings`."""
    return _load(DatabaseSettings, {})


_AnySettings = TypeVar("_AnySettings", bound=DatabaseSettings)


def _load(settings: type[_AnySettings], overrides: dict[str, Any]) -> _AnySettings:
    try:
        return settings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        raise SettingsError("\n".join(_explain(detail) for detail in error.errors())) from None


def _explain(error: Any) -> str:
    name = str(error["loc"][0]) if error["loc"] else ""
    variable = f"CLAIMSVC_{name.upper()}"
    if error["type"] == "missing":
        return f"{variable} is not set: {Settings.model_fields[name].description}"
    return f"{variable}: {str(error['msg']).removeprefix('Value error, ')}"
