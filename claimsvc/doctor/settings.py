"""Settings that are right each by itself, and wrong together."""

from claimsvc.config import Settings
from claimsvc.doctor.findings import Finding, Findings, Level, ok, warning, wrong
from claimsvc.errors import SettingsError

_SUBJECT = "settings"


def judge_settings(settings: Settings) -> Findings:
    """What can be said without asking anybody."""
    masters = len(settings.redis_urls)
    yield ok(
        _SUBJECT, f"{masters} master{'s' * (masters > 1)}, {settings.workers} worker{'s' * (settings.workers > 1)}"
    )
    if settings.failpoints:
        yield wrong(_SUBJECT, "CLAIMSVC_FAILPOINTS makes claims fail on purpose", "unset it; it is for tests alone")
    if not settings.admin_keys:
        yield warning(
            _SUBJECT,
            "CLAIMSVC_ADMIN_KEYS is empty, so only keys from `claimsvc key create` can create coupons over HTTP",
            "nothing, if there are some; else run `claimsvc key create --label NAME --scope coupons:write`",
        )
    if settings.database_statement_timeout_seconds + 1 >= settings.lock_ttl_seconds:
        yield warning(
            _SUBJECT,
            f"a transaction may take {settings.database_statement_timeout_seconds:g} s and more, and its lock ends "
            f"after {settings.lock_ttl_seconds:g} s",
            "raise CLAIMSVC_LOCK_TTL_SECONDS, or lower CLAIMSVC_DATABASE_STATEMENT_TIMEOUT_SECONDS",
        )
    if settings.claim_timeout_seconds <= settings.lock_retries * settings.lock_retry_wait_seconds:
        yield warning(
            _SUBJECT,
            "a claim is given up before it has made all its tries for the lock",
            "raise CLAIMSVC_CLAIM_TIMEOUT_SECONDS, or lower CLAIMSVC_LOCK_RETRIES",
        )
    if settings.quota_address is not None and not settings.trusted_proxies:
        yield warning(
            _SUBJECT,
            "CLAIMSVC_QUOTA_ADDRESS counts who connects, which behind a proxy is the proxy for everybody",
            "name the proxies in CLAIMSVC_TRUSTED_PROXIES; where there are none, 127.0.0.1",
        )
    if any(network.prefixlen == 0 for network in settings.trusted_proxies):
        yield warning(
            _SUBJECT,
            "CLAIMSVC_TRUSTED_PROXIES trusts every address, so any client may say that it has another",
            "name the networks of the proxies alone",
        )


def refused_settings(error: SettingsError) -> list[Finding]:
    """A finding for each setting that cannot be used; its message says what it should be."""
    return [Finding(Level.WRONG, _SUBJECT, line, "set it so, and ask again") for line in str(error).splitlines()]
