"""The settings: the type, default, bounds and description of each."""

from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from claimsvc.config.checks import (
    check_admin_keys,
    check_admin_port,
    check_database_url,
    check_goes_with_jwks,
    check_hosts,
    check_jwks,
    check_origins,
    check_quota,
    check_redis_urls,
    check_tracing_url,
    parse_networks,
    split_commas,
)
from claimsvc.domain import Quota

# A claim's answer must come within the lock's life by a wide margin, so the lock may not be shorter than this.
_SHORTEST_LOCK_TTL_SECONDS = 1.0

_OrNone = BeforeValidator(lambda text: text or None)
_QuotaText = Annotated[str | None, _OrNone, AfterValidator(check_quota)]


class DatabaseSettings(BaseModel):
    """How PostgreSQL is reached. Frozen: read once at start and handed down."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    database_url: Annotated[str, AfterValidator(check_database_url)] = Field(
        description="The PostgreSQL server (14 or newer), as postgresql://user:password@host:5432/database.", repr=False
    )
    database_pool_size: int = Field(
        10,
        ge=1,
        le=1000,
        description="Connections to PostgreSQL that each worker may open for claims and changes.",
    )
    database_read_pool_size: int = Field(
        2,
        ge=1,
        le=1000,
        description="Further connections to PostgreSQL that each worker may open for lists, searches, counts, the "
        "audit and exports.",
    )
    database_pool_timeout_seconds: float = Field(
        2.0, gt=0, le=60, description="Seconds to wait for a free connection of the pool before a request fails."
    )
    database_read_pool_timeout_seconds: float = Field(
        10.0,
        gt=0,
        le=60,
        description="Seconds that a list, search, count, page of the audit or of an export waits for its connection "
        "before it fails.",
    )
    database_connect_timeout_seconds: int = Field(
        3, ge=1, le=60, description="Seconds to wait for a new connection to PostgreSQL before it counts as failed."
    )
    database_statement_timeout_seconds: float = Field(
        3.0, gt=0, le=60, description="Seconds after which PostgreSQL cancels a statement."
    )
    database_lock_timeout_seconds: float = Field(
        2.0, gt=0, le=60, description="Seconds after which PostgreSQL cancels a statement that waits for a row lock."
    )
    database_idle_in_transaction_timeout_seconds: float = Field(
        5.0, gt=0, le=60, description="Seconds after which PostgreSQL ends a transaction whose process has stalled."
    )

    def connections_of_worker(self) -> int:
        """The most connections to PostgreSQL that one worker opens, in both pools."""
        return self.database_pool_size + self.database_read_pool_size


class Settings(DatabaseSettings):
    """How this instance runs."""

    redis_urls: Annotated[tuple[str, ...], BeforeValidator(split_commas), AfterValidator(check_redis_urls)] = Field(
        description="URLs of the independent Redis or Valkey masters that hold the lock, separated by commas: "
        "an odd number.",
        repr=False,
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8080, ge=0, le=65535, description="TCP port to listen on; 0 selects a free port.")
    admin_port: Annotated[int | None, _OrNone, Field(ge=0, le=65535), AfterValidator(check_admin_port)] = Field(
        None,
        description="TCP port for operators: with it, `/metrics`, `/console` and `/readyz?verbose` are answered there, "
        "and 404 on the public port; 0 selects a free port.",
    )
    workers: int = Field(1, ge=1, le=64, description="Worker processes that share the port.")
    admin_keys: Annotated[tuple[str, ...], BeforeValidator(split_commas), AfterValidator(check_admin_keys)] = Field(
        (),
        description="SHA-256 digests of the keys that have every permission, separated by commas.",
        repr=False,
    )

    jwt_jwks: Annotated[str | None, _OrNone, AfterValidator(check_jwks)] = Field(
        None,
        description="The JSON Web Key Set that verifies users' tokens: a file or an https URL. Without it, anyone may "
        "claim for any user.",
    )
    jwt_issuer: Annotated[str | None, _OrNone, AfterValidator(check_goes_with_jwks)] = Field(
        None, validate_default=True, description="The issuer that users' tokens must name in `iss`."
    )
    jwt_audience: Annotated[str | None, _OrNone, AfterValidator(check_goes_with_jwks)] = Field(
        None, validate_default=True, description="The audience that users' tokens must name in `aud`."
    )

    lock_ttl_seconds: float = Field(
        20.0,
        ge=_SHORTEST_LOCK_TTL_SECONDS,
        le=300,
        description="Seconds after which a lock that was not released expires.",
    )
    lock_retries: int = Field(
        3, ge=0, le=100, description="Further attempts to take the lock before a claim fails with `lock-busy`."
    )
    lock_retry_wait_seconds: float = Field(
        0.5, gt=0, le=10, description="Seconds between two attempts to take the lock."
    )
    lock_slice_seconds: float = Field(
        0.0025,
        gt=0,
        le=5,
        description="Seconds for which an instance keeps the lock while more claims arrive, before it yields to other "
        "instances.",
    )
    combining: Literal["on", "off"] = Field(
        "on",
        description="Whether an instance that finds a coupon's lock held hands its claims to the holder, instead of "
        "waiting for the lock.",
    )
    redis_timeout_seconds: float = Field(
        0.5, gt=0, le=10, description="Seconds to wait for a master to connect or to reply before it counts as failed."
    )
    redis_pool_size: int = Field(
        32, ge=1, le=10_000, description="Connections to each master that each worker may open."
    )

    claim_queue_timeout_seconds: float = Field(
        5.0,
        gt=0,
        le=60,
        description="Seconds that a claim may wait in the queue of its coupon before it fails with `unavailable`; "
        "waiting for the lock does not count.",
    )
    claim_timeout_seconds: float = Field(
        10.0,
        gt=0,
        le=300,
        description="Seconds after which a claim is answered in any case; its outcome may then still be open.",
    )
    reconcile_seconds: float = Field(
        60.0, gt=0, le=86_400, description="Seconds between two comparisons of the counters in Redis with PostgreSQL."
    )
    sweep_seconds: float = Field(
        1.0, gt=0, le=3600, description="Seconds between two passes that return the units of expired holds."
    )
    purge_seconds: float = Field(
        3600.0,
        gt=0,
        le=86_400,
        description="Seconds between two passes that delete expired responses, replaced lists and old coupons.",
    )
    purge_after_days: int = Field(
        0,
        ge=0,
        le=36_500,
        description="Days after its end or archiving when a coupon is deleted with all its claims; 0 keeps it forever.",
    )
    batch_size: int = Field(
        256, ge=1, le=10_000, description="Largest number of claims of one coupon that one transaction decides."
    )
    claims_waiting_limit: int = Field(
        10_000,
        ge=1,
        le=1_000_000,
        description="Largest number of claims that wait in one worker; further claims are refused at once.",
    )

    claims_under_way_per_address: Annotated[int | None, _OrNone, Field(ge=1, le=1_000_000)] = Field(
        None,
        description="Claims that each client address may have under way in one worker; further ones wait. A trusted "
        "proxy that names no client has no such limit.",
    )

    body_timeout_seconds: float = Field(
        10.0, gt=0, le=300, description="Seconds to wait for the body of a request before it is refused."
    )
    header_timeout_seconds: float = Field(
        10.0, gt=0, le=300, description="Seconds to wait for the headers of a request before it is refused."
    )
    unfinished_requests_bytes: int = Field(
        33_554_432,
        ge=1_048_576,
        le=1_099_511_627_776,
        description="Bytes that each worker keeps of requests that have not arrived completely, or wait for the one "
        "before them; beyond, the connection with most of them, of the address with most of them, is refused.",
    )
    write_timeout_seconds: float = Field(
        10.0,
        gt=0,
        le=300,
        description="Seconds for which a client may read nothing of its response before its connection is closed.",
    )
    shutdown_grace_seconds: float = Field(
        30.0, gt=0, le=600, description="Seconds that accepted requests get to finish after SIGTERM."
    )
    shutdown_drain_notice_seconds: float = Field(
        1.0,
        ge=0,
        le=60,
        description="Seconds after SIGTERM for which idle connections stay open, so that their next response can ask "
        "the client to close them. Choose more than your load balancer needs to notice.",
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least severe level that is logged."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="Format of log lines; `auto` is `console` on a terminal and `json` elsewhere."
    )
    log_requests_per_second: int = Field(
        1000,
        ge=0,
        le=1_000_000,
        description="Requests per second that each get a log line; of those beyond, one in 100 does. Failed requests "
        "always get one.",
    )
    tracing_url: Annotated[str | None, _OrNone, AfterValidator(check_tracing_url)] = Field(
        None,
        repr=False,
        description="OTLP endpoint that traces are sent to, as http://collector:4318/v1/traces; needs "
        "`claimsvc[tracing]`.",
    )
    traces_per_second: int = Field(
        100, ge=0, le=1_000_000, description="Largest number of claims per second that each worker traces."
    )

    quota_user: _QuotaText = Field(
        None, description="Claim requests that each user may send: 10/60 allows 10 within 60 seconds."
    )
    quota_address: _QuotaText = Field(
        None,
        description="Claim requests that each client address may send, such as 10/60; an IPv6 /64 counts as one "
        "address.",
    )
    trusted_proxies: Annotated[tuple[IPv4Network | IPv6Network, ...], BeforeValidator(parse_networks)] = Field(
        (),
        description="Networks of the proxies whose X-Forwarded-For header is trusted for the client's address, "
        "separated by commas.",
    )
    cors_origins: Annotated[tuple[str, ...], BeforeValidator(split_commas), AfterValidator(check_origins)] = Field(
        (),
        description="Origins whose pages may use the API from a browser, such as https://shop.example, separated by "
        "commas; * for all.",
    )
    allowed_hosts: Annotated[tuple[str, ...], BeforeValidator(split_commas), AfterValidator(check_hosts)] = Field(
        (),
        description="Hosts, such as app or app:8080, that requests which change something must be addressed to "
        "(`Host`), separated by commas. Without any, every host is accepted; `claimsvc dev` accepts them besides "
        "localhost.",
    )

    failpoints: Annotated[tuple[str, ...], BeforeValidator(split_commas)] = Field(
        (), description="Where this process fails on purpose, for the fault suite only; see `claimsvc/failpoints.py`."
    )

    def quotas(self) -> tuple[Quota, ...]:
        """The quotas that are set. The address comes first, so that made-up users cannot fill the masters."""
        texts = {"address": self.quota_address, "user": self.quota_user}
        return tuple(Quota.parse(name, text) for name, text in texts.items() if text is not None)
