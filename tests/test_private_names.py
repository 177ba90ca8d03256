"""The private names of libraries that the service uses. Each has an upper pin: raise it when these still hold."""

import jwt
import pytest
from aiohttp import web, web_protocol
from aiohttp.http_writer import StreamWriter
from aiohttp.test_utils import make_mocked_request
from prometheus_client import Counter, Histogram
from prometheus_client.samples import Exemplar

from claimsvc.identity.signatures import _Jws, _jwt
from claimsvc.observability.metrics.prometheus_values import (
    add_to,
    bounds_of,
    bucket_counts_of,
    series_of,
    set_exemplar,
    sum_of,
    value_of,
)

OF_A_CONNECTION = (
    "_buffer_paused",
    "_close",
    "_current_request",
    "_drain_helper",
    "_force_close",
    "_handle_request",
    "_keepalive_timeout",
    "_loop",
    "_max_msg_queue_size",
    "_messages",
    "_next_keepalive_close_time",
    "_parser",
    "_process_keepalive",
    "_reading_paused",
    "_request_count",
    "_task_handler",
    "_upgraded",
    "_waiter",
)


@pytest.mark.parametrize("name", OF_A_CONNECTION)
def test_aiohttp_s_connection_has(name: str) -> None:
    assert name in dir(web.RequestHandler)


def test_aiohttp_s_other_parts_have_their_names() -> None:
    assert {"MAX_MSG_QUEUE_SIZE", "_ErrInfo", "_RequestHandler"} <= set(dir(web_protocol))
    assert "_write" in dir(StreamWriter)
    assert {"_make_server"} <= set(dir(web.AppRunner))
    request = make_mocked_request("GET", "/")
    assert {"_match_info", "_message", "_payload_writer"} <= set(dir(request))


def test_pyjwt_s_reader_has_what_is_replaced() -> None:
    assert {"_decode_base64url_segment", "_load"} <= set(dir(jwt.PyJWS))
    assert isinstance(jwt.PyJWT()._jws, jwt.PyJWS)
    assert isinstance(_jwt._jws, _Jws)


def test_prometheus_client_s_values_can_be_read_and_added_to() -> None:
    counter = Counter("a", "b", ["label"], registry=None)
    counter.labels("x").inc(2)
    assert list(series_of(counter)) == [("x", 2.0)]
    assert value_of(counter.labels("x")) == 2.0
    histogram = Histogram("c", "d", buckets=(1.0, 2.0), registry=None)
    histogram.observe(0.5)
    add_to(histogram, [0, 2, 1], 6.0)
    set_exemplar(histogram, 1, Exemplar({"trace_id": "a"}, 1.5, 0.0))
    assert list(bounds_of(histogram)) == [1.0, 2.0, float("inf")]
    assert (bucket_counts_of(histogram), sum_of(histogram)) == ([1.0, 2.0, 1.0], 6.5)
