"""What tracing does to the service: nothing when it is off, and no harm when it is on."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from claimsvc.embedded import free_port
from tests.observability.tracing.collector import Collector
from tests.observability.tracing.conftest import Serve, Service
from tests.support.program import CLAIMSVC, environment

OPENMETRICS = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"}
WITH_EXEMPLARS = {
    "claimsvc_claim_duration_seconds",
    "claimsvc_lock_wait_seconds",
    "claimsvc_lock_hold_seconds",
    "claimsvc_redis_call_seconds",
    "claimsvc_db_transaction_seconds",
    "claimsvc_http_request_duration_seconds",
}


def exemplars(service: Service) -> dict[str, set[str]]:
    """The traces that each histogram names."""
    status, content_type, text = service.ask("GET", "/metrics", headers=OPENMETRICS)
    assert (status, content_type.partition(";")[0]) == (200, "application/openmetrics-text")
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):  # type: ignore[no-untyped-call]
        for sample in family.samples:
            if sample.exemplar is not None:
                assert sample.exemplar.value <= float(sample.labels["le"])
                found.setdefault(family.name, set()).add(sample.exemplar.labels["trace_id"])
    return found


def test_a_trace_is_named_by_the_histograms_and_by_the_log(serve: Serve, collector: Collector) -> None:
    service = serve(TRACING_URL=collector.url)
    assert service.claim("ada")[0] == 201
    collector.eventually(lambda: collector.spans("lock release"))
    trace_id = collector.spans()[0].trace_id
    assert exemplars(service) == {name: {trace_id} for name in WITH_EXEMPLARS}
    service.program.eventually(lambda: len(service.lines()) == 1)
    assert service.lines()[0]["trace_id"] == trace_id
    assert trace_id not in service.ask("GET", "/metrics")[2]


@pytest.mark.slow
def test_several_workers_trace_each_and_have_metrics_without_exemplars(serve: Serve, collector: Collector) -> None:
    service = serve(TRACING_URL=collector.url, WORKERS=2)
    service.program.eventually(lambda: service.program.count("serving") == 2)
    assert [service.claim(f"user-{number}")[0] for number in range(5)] == [201] * 5
    collector.eventually(lambda: len(collector.spans("POST /api/coupons/claim")) == 5)
    service.program.eventually(
        lambda: service.metric('claimsvc_claims_total{coupon="spring",outcome="claimed",strategy="redlock"}') == 5
    )
    assert exemplars(service) == {}


@pytest.fixture
def without_opentelemetry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is started finds no OpenTelemetry, as if it were not installed."""
    package = tmp_path / "shadow" / "opentelemetry"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ModuleNotFoundError('not installed', name='opentelemetry')")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(package.parent), str(Path.cwd())]))


@pytest.mark.usefixtures("without_opentelemetry")
def test_off_nothing_of_it_is_imported_or_needed(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    # redis-py tries to import OpenTelemetry by itself, and goes on without it as here.
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    service = serve()
    assert service.claim("ada")[0] == 201
    assert service.ask("GET", "/metrics", headers=OPENMETRICS)[0] == 200
    imported = re.findall(r"^import time:.*\| +(\S+)$", service.program.stderr, re.MULTILINE)
    assert "claimsvc.observability.tracing" in imported
    assert not [name for name in imported if name.startswith("claimsvc.observability.tracing.")]
    service.program.eventually(lambda: len(service.lines()) == 1)
    assert "trace_id" not in service.lines()[0]


@pytest.mark.slow
@pytest.mark.usefixtures("without_opentelemetry")
def test_switched_on_without_its_packages_it_says_what_to_install(
    database_url: str, redis_urls: tuple[str, ...]
) -> None:
    variables = {
        "CLAIMSVC_DATABASE_URL": database_url,
        "CLAIMSVC_REDIS_URLS": ",".join(redis_urls),
        "CLAIMSVC_PORT": "0",
        "CLAIMSVC_TRACING_URL": "http://127.0.0.1:4318/v1/traces",
    }
    for arguments in (("serve",), ("serve", "--workers", "2")):
        run = subprocess.run(
            [*CLAIMSVC, *arguments], env=environment(variables), capture_output=True, text=True, timeout=60, check=False
        )
        assert run.returncode == 78
        assert "CLAIMSVC_TRACING_URL" in run.stderr
        assert "claimsvc[tracing]" in run.stderr


def claims_and_ends(service: Service, is_being_sent: Callable[[], object]) -> None:
    """Claims are made as ever, before and while spans are sent in vain, and the service ends in order, soon."""
    claim_forty(service, "early")
    is_being_sent()
    claim_forty(service, "late")
    began = time.monotonic()
    assert service.program.end(signal.SIGTERM) == 0
    assert time.monotonic() - began < 8


def claim_forty(service: Service, when: str) -> None:
    """In less time than the collector is given once."""
    began = time.monotonic()
    assert [service.claim(f"{when}-{number}")[0] for number in range(40)] == [201] * 40
    assert time.monotonic() - began < 5


@pytest.mark.slow
def test_a_collector_that_is_not_there_harms_no_claim(serve: Serve) -> None:
    service = serve(TRACING_URL=f"http://127.0.0.1:{free_port()}/v1/traces")
    claims_and_ends(service, lambda: service.program.eventually(lambda: "Connection refused" in service.program.stderr))


@pytest.mark.slow
def test_a_collector_that_never_answers_harms_no_claim(serve: Serve, silent_collector: socket.socket) -> None:
    service = serve(TRACING_URL=f"http://127.0.0.1:{silent_collector.getsockname()[1]}/v1/traces")
    with contextlib.ExitStack() as stack:
        claims_and_ends(service, lambda: stack.enter_context(silent_collector.accept()[0]))


def test_what_is_left_is_sent_at_the_end(serve: Serve, collector: Collector) -> None:
    service = serve(TRACING_URL=collector.url)
    service.claim("ada")
    assert service.program.end(signal.SIGTERM) == 0
    assert {span.name for span in collector.spans()} >= {"POST /api/coupons/claim", "batch", "lock release"}
