"""What a wrong setting is answered with."""

from hashlib import sha256

import pytest

from claimsvc.config import RenamedVariable, Settings, load_database_settings, load_settings, renamed_variables
from claimsvc.config.environment import RENAMED
from claimsvc.domain import Quota
from claimsvc.errors import SettingsError

DATABASE = "postgresql://user:secret@localhost:5432/claims"
MASTERS = "redis://a:6379,redis://b:6379,redis://c:6379"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("CLAIMSVC_DATABASE_URL", DATABASE)
    monkeypatch.setenv("CLAIMSVC_REDIS_URLS", MASTERS)
    return monkeypatch


def test_the_defaults_are_those_of_the_contract() -> None:
    settings = load_settings()
    assert (settings.lock_ttl_seconds, settings.lock_retries, settings.lock_retry_wait_seconds) == (20.0, 3, 0.5)
    assert settings.redis_urls == ("redis://a:6379", "redis://b:6379", "redis://c:6379")
    assert settings.database_url == "postgresql+psycopg://user:secret@localhost:5432/claims"


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("REDIS_URLS", "redis://a:6379,redis://b:6379", "odd number"),
        ("REDIS_URLS", "redis://a:6379,redis://b:6379,redis://A", "listed twice"),
        ("REDIS_URLS", "redis://a/0,redis://a/1,redis://b", "listed twice"),
        ("REDIS_URLS", "", "odd number"),
        ("REDIS_URLS", "http://a", "must look like redis://"),
        ("REDIS_URLS", "redis://a:many", "the port is a number"),
        ("REDIS_URLS", "redis://a:65536", "the port is a number"),
        ("REDIS_URLS", "redis://a/first", "must look like redis://"),
        ("REDIS_URLS", "redis://a?no_such_option=1", "options of redis-py"),
        ("REDIS_URLS", "redis://a?db=first", "options of redis-py"),
        ("DATABASE_URL", "postgresql://a:many/b", "the port is a number"),
        ("TRACING_URL", "http://collector:many/", "the port is a number"),
        ("DATABASE_URL", "mysql://a/b", "must look like postgresql://"),
        ("DATABASE_URL", "postgresql://a", "must look like postgresql://"),
        ("PORT", "65536", "65535"),
        ("LOCK_TTL_SECONDS", "soon", "number"),
        ("LOCK_TTL_SECONDS", "0", "must be a number from 1 to 300"),
        ("LOCK_RETRY_WAIT_SECONDS", "0", "must be a number greater than 0 and at most 10"),
        ("WORKERS", "many", "must be a whole number from 1 to 64"),
        ("ADMIN_KEYS", "the-key-itself", "claimsvc key create"),
        ("LOG_LEVEL", "loud", "'debug'"),
        ("TRACING_URL", "collector:4318", "must look like http://collector:4318/v1/traces"),
        ("TRACING_URL", "ftp://collector/", "must look like http://collector:4318/v1/traces"),
        ("TRACING_URL", "http://", "must look like http://collector:4318/v1/traces"),
        ("JWT_JWKS", "http://issuer.example/keys.json", "must be a file, or look like https://"),
        ("JWT_JWKS", "ftp://issuer.example/keys.json", "must be a file, or look like https://"),
        ("JWT_JWKS", "https:///keys.json", "must be a file, or look like https://"),
        ("JWT_ISSUER", "https://issuer.example", "must be set if CLAIMSVC_JWT_JWKS is set"),
        ("JWT_AUDIENCE", "claims", "must be set if CLAIMSVC_JWT_JWKS is set"),
        ("QUOTA_USER", "10", "must look like 10/60"),
        ("QUOTA_USER", "0/60", "must look like 10/60"),
        ("QUOTA_ADDRESS", "10/0", "must look like 10/60"),
        ("QUOTA_ADDRESS", "10 / 60", "must look like 10/60"),
        ("QUOTA_ADDRESS", "100001/60", "at most 100000 within 86400"),
        ("QUOTA_ADDRESS", "1/86401", "at most 100000 within 86400"),
        ("TRUSTED_PROXIES", "10.0.0.1/8", "must look like 10.0.0.7, 10.0.0.0/8"),
        ("TRUSTED_PROXIES", "10.0.0.7,proxy.example", "must look like 10.0.0.7, 10.0.0.0/8"),
    ],
)
def test_a_wrong_value_is_named_with_what_it_should_be(
    environment: pytest.MonkeyPatch, variable: str, value: str, words: str
) -> None:
    environment.setenv(f"CLAIMSVC_{variable}", value)
    with pytest.raises(SettingsError) as refusal:
        load_settings()
    assert str(refusal.value).startswith(f"CLAIMSVC_{variable}")
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    "source", ["https://issuer.example/keys.json", "http://127.0.0.1:9/keys", "http://localhost/keys", "/etc/keys.json"]
)
def test_whose_tokens_are_good_is_said_wholly_or_not_at_all(environment: pytest.MonkeyPatch, source: str) -> None:
    environment.setenv("CLAIMSVC_JWT_JWKS", source)
    with pytest.raises(SettingsError) as refusal:
        load_settings()
    assert [line.split(":")[0] for line in str(refusal.value).splitlines()] == [
        "CLAIMSVC_JWT_ISSUER",
        "CLAIMSVC_JWT_AUDIENCE",
    ]
    environment.setenv("CLAIMSVC_JWT_ISSUER", "https://issuer.example")
    environment.setenv("CLAIMSVC_JWT_AUDIENCE", "claims")
    assert load_settings().jwt_jwks == source


def test_everything_that_is_missing_is_named_at_once(environment: pytest.MonkeyPatch) -> None:
    environment.delenv("CLAIMSVC_DATABASE_URL")
    environment.delenv("CLAIMSVC_REDIS_URLS")
    with pytest.raises(SettingsError) as refusal:
        load_settings()
    assert [line.split(" ")[0] for line in str(refusal.value).splitlines()] == [
        "CLAIMSVC_DATABASE_URL",
        "CLAIMSVC_REDIS_URLS",
    ]


@pytest.mark.parametrize(
    "url",
    ["mysql://user:secret@host/db", "postgresql://user:secret/half@host/db", "postgresql://u:secret\u2100@host/db"],
)
def test_an_error_never_repeats_a_secret(environment: pytest.MonkeyPatch, url: str) -> None:
    environment.setenv("CLAIMSVC_DATABASE_URL", url)
    environment.setenv("CLAIMSVC_REDIS_URLS", "redis://:secret/half@host")
    environment.setenv("CLAIMSVC_ADMIN_KEYS", "secret")
    with pytest.raises(SettingsError) as refusal:
        load_settings()
    assert "secret" not in str(refusal.value)


def test_settings_can_be_shown_without_their_secrets(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("CLAIMSVC_ADMIN_KEYS", sha256(b"key").hexdigest())
    assert "secret" not in repr(load_settings())


def test_a_command_that_needs_only_the_database_asks_for_no_masters(environment: pytest.MonkeyPatch) -> None:
    environment.delenv("CLAIMSVC_REDIS_URLS")
    assert load_database_settings().database_url.endswith("/claims")


def test_a_former_name_goes_on_working_and_the_present_one_wins(environment: pytest.MonkeyPatch) -> None:
    assert renamed_variables() == []
    environment.setenv("CLAIMSVC_CLAIM_PATIENCE_SECONDS", "2.5")
    former, current = "CLAIMSVC_CLAIM_PATIENCE_SECONDS", "CLAIMSVC_CLAIM_QUEUE_TIMEOUT_SECONDS"
    assert load_settings().claim_queue_timeout_seconds == 2.5
    assert renamed_variables() == [RenamedVariable(former, current, is_ignored=False)]
    environment.setenv("CLAIMSVC_CLAIM_QUEUE_TIMEOUT_SECONDS", "3.5")
    assert load_settings().claim_queue_timeout_seconds == 3.5
    assert renamed_variables() == [RenamedVariable(former, current, is_ignored=True)]


def test_a_wrong_value_by_a_former_name_is_named_as_it_was_set(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("CLAIMSVC_SHUTDOWN_FAREWELL_SECONDS", "soon")
    with pytest.raises(SettingsError, match=r"^CLAIMSVC_SHUTDOWN_FAREWELL_SECONDS: .* number"):
        load_settings()


def test_names_are_taken_in_any_case(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("claimsvc_port", "1")
    assert load_settings().port == 1


def test_former_names_lead_to_settings() -> None:
    assert set(RENAMED.values()) <= Settings.model_fields.keys()
    assert not RENAMED.keys() & Settings.model_fields.keys()


def test_the_command_line_wins_over_the_environment(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("CLAIMSVC_PORT", "1")
    assert load_settings(port=2, host=None).port == 2


def test_quotas_are_off_unless_they_are_set_and_an_empty_value_sets_nothing(environment: pytest.MonkeyPatch) -> None:
    assert load_settings().quotas() == ()
    environment.setenv("CLAIMSVC_QUOTA_USER", "")
    environment.setenv("CLAIMSVC_TRUSTED_PROXIES", "")
    assert (load_settings().quotas(), load_settings().trusted_proxies) == ((), ())
    environment.setenv("CLAIMSVC_QUOTA_USER", "10/60")
    environment.setenv("CLAIMSVC_QUOTA_ADDRESS", "100000/86400")
    assert load_settings().quotas() == (Quota("address", 100_000, 86_400), Quota("user", 10, 60))
