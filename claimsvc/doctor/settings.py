"""Judges combinations of settings that are valid individually."""

from claimsvc.config import Settings, hint
from claimsvc.doctor.findings import Finding, Findings, Level, ok, warning, wrong
from claimsvc.errors import SettingsError

_SUBJECT = "settings"


def judge_settings(settings: Settings) -> Findings:
    """Judge the settings without connecting to anything."""
    masters = len(settings.redis_urls)
    yield ok(
        _SUBJECT, f"{masters} master{'s' * (masters > 1)}, {settings.workers} worker{'s' * (settings.workers > 1)}"
    )
    if advice := hint():
        yield wrong(_SUBJECT, "the variables of this shell are those of a `make run` that is over", advice)
    if settings.failpoints:
        yield wrong(_SUBJECT, "CLAIMSVC_FAILPOINTS makes claims fail on purpose", "unset it; it is only for tests")
    if not settings.admin_keys:
        yield warning(
            _SUBJECT,
            "CLAIMSVC_ADMIN_KEYS is empty, so only keys from `claimsvc key create` can create coupons over HTTP",
            "unless you have such a key, run `claimsvc key create --label NAME --scope coupons:write`",
        )
    if settings.database_statement_timeout_seconds + 1 >= settings.lock_ttl_seconds:
        yield warning(
            _SUBJECT,
            f"a transaction may take more than {settings.database_statement_timeout_seconds:g} s, but its lock expires "
            f"after {settings.lock_ttl_seconds:g} s",
            "raise CLAIMSVC_LOCK_TTL_SECONDS, or lower CLAIMSVC_DATABASE_STATEMENT_TIMEOUT_SECONDS",
        )
    if settings.claim_timeout_seconds <= settings.lock_retries * settings.lock_retry_wait_seconds:
        yield warning(
            _SUBJECT,
            "a claim times out before it has made all its attempts to take the lock",
            "raise CLAIMSVC_CLAIM_TIMEOUT_SECONDS, or lower CLAIMSVC_LOCK_RETRIES",
        )
    if settings.quota_address is not None and not settings.trusted_proxies:
        yield warning(
            _SUBJECT,
            "CLAIMSVC_QUOTA_ADDRESS counts the connecting address; behind a proxy that is the proxy's, for all users",
            "list the proxies in CLAIMSVC_TRUSTED_PROXIES; if there are none, 127.0.0.1",
        )
    if any(network.prefixlen == 0 for network in settings.trusted_proxies):
        yield warning(
            _SUBJECT,
            "CLAIMSVC_TRUSTED_PROXIES trusts every address, so any client can forge its address",
            "list only the networks of the proxies",
        )


def refused_settings(error: SettingsError) -> list[Finding]:
    """Return a finding for each invalid setting; its message says what is valid."""
    return [Finding(Level.WRONG, _SUBJECT, line, "correct it, and run this again") for line in str(error).splitlines()]
