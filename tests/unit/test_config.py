"""What a wrong setting is answered with."""

from hashlib import sha256

import pytest

from claimsvc.config import load_database_settings, load_settings
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
        ("REDIS_URLS", "redis://a:6379,redis://b:6379,redis://A", "named twice"),
        ("REDIS_URLS", "redis://a/0,redis://a/1,redis://b", "named twice"),
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
        ("LOCK_TTL_SECONDS", "0", "greater than or equal to 1"),
        ("ADMIN_KEYS", "the-key-itself", "claimsvc key create"),
        ("LOG_LEVEL", "loud", "'debug'"),
        ("TRACING_URL", "collector:4318", "must look like http://collector:4318/v1/traces"),
        ("TRACING_URL", "ftp://collector/", "must look like http://collector:4318/v1/traces"),
        ("TRACING_URL", "http://", "must look like http://collector:4318/v1/traces"),
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


def test_the_command_line_wins_over_the_environment(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("CLAIMSVC_PORT", "1")
    assert load_settings(port=2, host=None).port == 2
