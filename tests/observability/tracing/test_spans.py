"""What a collector gets to see of claims."""

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from claimsvc.embedded import embedded_services, temporary_state_dir
from tests.observability.tracing.collector import Collector, Span
from tests.observability.tracing.conftest import Serve, Service

REQUEST = "POST /api/coupons/claim"
TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def waited_for(collector: Collector, spans: dict[str, int]) -> None:
    """Wait until so many spans of these names have arrived."""
    collector.eventually(lambda: all(len(collector.spans(name)) >= count for name, count in spans.items()))


def port_of(url: str) -> int:
    return urlsplit(url).port or 6379


def ports_of(service: Service) -> list[int]:
    """Of its masters."""
    return sorted(map(port_of, service.redis_urls))


def within(inner: Span, outer: Span) -> bool:
    return outer.began <= inner.began <= inner.ended <= outer.ended


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=UTF-8"])
def test_a_claim_is_one_tree_from_the_request_to_each_master_and_back(
    serve: Serve, collector: Collector, content_type: str
) -> None:
    service = serve(TRACING_URL=collector.url)
    service.claim("first")  # from here on the masters know the scripts
    waited_for(collector, {REQUEST: 1, "lock release": 1})
    assert service.claim("ada", Content_Type=content_type, X_Request_ID="mine")[0] == 201
    waited_for(collector, {REQUEST: 2, "lock release": 2})

    request = collector.spans(REQUEST)[-1]
    assert (request.kind, request.parent_id, request.failed, request.service) == ("server", "", False, "claimsvc")
    assert request.attributes["http.response.status_code"] == 201
    assert request.attributes["claimsvc.outcome"] == "claimed"
    assert request.attributes["claimsvc.coupon"] == "spring"
    assert request.attributes["claimsvc.request_id"] == "mine"

    [batch] = collector.children(request)
    assert (batch.name, batch.failed, batch.attributes["claimsvc.claims"]) == ("batch", False, 1)
    assert batch.links == {request.span_id: "claim"}
    assert request.links == {batch.span_id: "batch"}

    acquire, transaction, release = collector.children(batch)
    assert [acquire.name, transaction.name, release.name] == ["lock acquire", "transaction", "lock release"]
    assert within(acquire, batch)
    assert within(transaction, batch)
    assert acquire.ended <= transaction.began <= transaction.ended <= release.began
    assert (transaction.kind, transaction.attributes["db.system.name"]) == ("client", "postgresql")
    for step in (acquire, release):
        asked = collector.children(step)
        assert sorted(each.attributes["server.port"] for each in asked) == ports_of(service)
        assert all(each.kind == "client" and not each.failed for each in asked)
    assert {each.trace_id for each in (batch, acquire, transaction, release)} == {request.trace_id}


def test_a_batch_links_its_claims_and_they_link_it(serve: Serve, collector: Collector) -> None:
    service = serve(TRACING_URL=collector.url)
    service.claim("first")  # from here on the coupon is known, and claims of it wait together
    assert service.claim_once_free([f"user-{number}" for number in range(5)]) == [201] * 5
    waited_for(collector, {REQUEST: 6, "lock release": 2})
    [batch] = [each for each in collector.spans("batch") if each.attributes.get("claimsvc.claims") == 5]
    claims = [each for each in collector.spans(REQUEST) if batch.span_id in each.links]
    assert batch.links == {each.span_id: "claim" for each in claims}
    assert len({each.trace_id for each in claims}) == 5
    assert batch.parent_id in batch.links
    assert len(collector.children(batch, "transaction")) == 1
    [acquire] = collector.children(batch, "lock acquire")
    asked = [each.attributes["server.port"] for each in collector.children(acquire, "SET")]
    assert sorted(set(asked)) == ports_of(service)


@pytest.mark.slow
def test_a_batch_for_which_the_lock_was_kept_links_the_one_for_which_it_was_taken(
    serve: Serve, collector: Collector
) -> None:
    service = serve(TRACING_URL=collector.url)
    service.claim("first")
    waited_for(collector, {"lock release": 1})  # or the next claim might find the lock still kept
    with ThreadPoolExecutor(2) as threads:
        with service.database.transaction():
            service.database.execute("SELECT FROM coupons FOR UPDATE")
            ada = threads.submit(service.claim, "ada")
            service.program.eventually(lambda: service.metric("claimsvc_batch_size_count") == 2)
            ben = threads.submit(service.claim, "ben")
            service.program.eventually(lambda: service.metric("claimsvc_claims_waiting") == 2)
        assert (ada.result()[0], ben.result()[0]) == (201, 201)
    waited_for(collector, {REQUEST: 3, "batch": 3, "lock release": 2})
    _, taking, keeping = collector.spans("batch")
    _, adas, bens = collector.spans(REQUEST)
    assert (taking.parent_id, keeping.parent_id) == (adas.span_id, bens.span_id)
    assert keeping.links == {taking.span_id: "took the lock", bens.span_id: "claim"}
    assert [each.name for each in collector.children(keeping)] == ["transaction"]
    assert [each.name for each in collector.children(taking)] == ["lock acquire", "transaction", "lock release"]


@pytest.mark.slow
def test_a_lock_that_stays_busy_is_an_error_of_the_request_the_batch_and_the_wait(
    serve: Serve, collector: Collector
) -> None:
    service = serve(TRACING_URL=collector.url, LOCK_RETRIES=1, LOCK_RETRY_WAIT_SECONDS=0.1)
    with service.lock_held_by_another():
        status, problem = service.claim("ada")
    assert (status, problem["type"]) == (503, "/problems/lock-busy")
    waited_for(collector, {REQUEST: 1, "batch": 2, "lock acquire": 2})
    [request] = collector.spans(REQUEST)
    assert (request.failed, request.attributes["error.type"]) == (True, "lock-busy")
    at_once, waiting = collector.children(request, "batch")
    assert (at_once.failed, waiting.failed) == (False, True)  # to be busy at once is no failure
    [acquire] = collector.children(waiting)
    assert (acquire.name, acquire.failed, acquire.attributes["error.type"]) == ("lock acquire", True, "LockBusyError")


@pytest.mark.slow
def test_masters_that_do_not_answer_are_errors_each_and_together(serve: Serve, collector: Collector) -> None:
    with temporary_state_dir() as state, embedded_services(state, database_url="unused", durable=False) as own:
        service = serve(TRACING_URL=collector.url, masters=own.redis_urls)
        service.claim("first")
        waited_for(collector, {REQUEST: 1, "lock release": 1})
        for master in own.masters[:2]:
            master.stop()
        assert service.claim("ada")[0] == 503
        waited_for(collector, {REQUEST: 2, "batch": 2})
    request, batch = collector.spans(REQUEST)[-1], collector.spans("batch")[-1]
    assert (request.failed, request.attributes["error.type"]) == (True, "unavailable")
    assert (batch.parent_id, batch.failed) == (request.span_id, True)
    [acquire] = collector.children(batch)
    assert (acquire.failed, acquire.attributes["error.type"]) == (True, "UnavailableError")
    failed = {each.attributes["server.port"] for each in collector.children(acquire) if each.failed}
    assert failed == {port_of(master.url) for master in own.masters[:2]}


def test_a_transaction_that_fails_is_an_error_of_the_request_and_the_batch(serve: Serve, collector: Collector) -> None:
    service = serve(TRACING_URL=collector.url, DATABASE_LOCK_TIMEOUT_SECONDS=0.2)
    with service.database.transaction():
        service.database.execute("SELECT FROM coupons FOR UPDATE")
        assert service.claim("ada")[0] == 503
    waited_for(collector, {REQUEST: 1, "batch": 1})
    [request], [batch], [transaction] = (collector.spans(name) for name in (REQUEST, "batch", "transaction"))
    assert (request.failed, batch.failed, transaction.failed) == (True, True, True)
    assert transaction.attributes["error.type"] == "UnavailableError"
    assert "PostgreSQL" in transaction.message


def test_the_callers_trace_is_continued(serve: Serve, collector: Collector) -> None:
    service = serve(TRACING_URL=collector.url)
    service.claim("ada", traceparent=f"00-{TRACE}-{CALLER}-01")
    waited_for(collector, {REQUEST: 1, "batch": 1})
    [request], [batch] = collector.spans(REQUEST), collector.spans("batch")
    assert (request.trace_id, request.parent_id) == (TRACE, CALLER)
    assert (batch.trace_id, batch.parent_id) == (TRACE, request.span_id)
    service.program.eventually(lambda: len(service.lines()) == 1)
    assert service.lines()[0]["trace_id"] == TRACE


@pytest.mark.slow
def test_what_the_caller_does_not_trace_is_not_traced_but_named_in_the_log(serve: Serve, collector: Collector) -> None:
    service = serve(TRACING_URL=collector.url)
    service.claim("ada", traceparent=f"00-{TRACE}-{CALLER}-00")
    service.claim("ben")  # sent after it
    waited_for(collector, {REQUEST: 1})
    assert TRACE not in {each.trace_id for each in collector.spans()}
    service.program.eventually(lambda: len(service.lines()) == 2)
    assert [line["trace_id"] for line in service.lines()] == [TRACE, collector.spans(REQUEST)[0].trace_id]


@pytest.mark.slow
@pytest.mark.parametrize("given", ["", "nonsense", f"00-{TRACE}-{CALLER}", f"00-{'0' * 32}-{CALLER}-01", "\xff"])
def test_a_traceparent_that_is_none_begins_a_new_trace(serve: Serve, collector: Collector, given: str) -> None:
    service = serve(TRACING_URL=collector.url)
    assert service.claim("ada", traceparent=given)[0] == 201
    waited_for(collector, {REQUEST: 1})
    assert collector.spans(REQUEST)[0].parent_id == ""


@pytest.mark.slow
def test_so_many_claims_are_traced_in_a_second_and_no_more(serve: Serve, collector: Collector) -> None:
    service = serve(TRACING_URL=collector.url, TRACES_PER_SECOND=3)
    began = time.monotonic()
    for number in range(60):
        # Whoever asks for a trace gets none beyond them either.
        service.claim(f"user-{number}", traceparent=f"00-{TRACE}-{CALLER}-01")
    seconds = time.monotonic() - began
    service.program.end(signal.SIGTERM)  # sends what is left
    assert 3 <= len(collector.spans(REQUEST)) <= 3 * (seconds + 1)


@pytest.mark.slow
def test_a_batch_is_traced_if_any_of_its_claims_is(serve: Serve, collector: Collector) -> None:
    service = serve(TRACING_URL=collector.url, TRACES_PER_SECOND=1)
    service.claim("first", traceparent=f"00-{TRACE}-{CALLER}-00")  # its caller wants no trace, so it is none of them
    assert service.claim_once_free([f"user-{number}" for number in range(5)]) == [201] * 5
    service.program.end(signal.SIGTERM)  # sends what is left
    [batch] = [each for each in collector.spans("batch") if each.attributes.get("claimsvc.claims") == 5]
    traced = collector.spans(REQUEST)
    assert batch.links == {each.span_id: "claim" for each in traced}
    assert 0 < len(traced) < 5, "one in a second, and a busy machine may need more than one for all"
