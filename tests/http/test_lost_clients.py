"""A client that goes away is no defect of the service, whenever it goes."""

from unittest.mock import Mock

import pytest
from aiohttp import StreamReader, hdrs
from aiohttp.base_protocol import BaseProtocol
from aiohttp.test_utils import make_mocked_request

from claimsvc.http.framework.bodies import BROKEN_BODY, read_body
from claimsvc.http.framework.schemas import ClaimCoupon
from claimsvc.http.server.problems import RefusedError


async def test_whoever_has_gone_with_the_body_complete_is_refused() -> None:
    body = StreamReader(Mock(spec=BaseProtocol), limit=2**16)
    body.feed_data(b'{"user_id": "ada", "coupon_name": "spring"}')
    body.feed_eof()
    body.set_exception(ConnectionResetError("Connection lost"))
    headers = {hdrs.CONTENT_TYPE: "application/json", hdrs.CONTENT_LENGTH: "44"}
    request = make_mocked_request("POST", "/api/coupons/claim", headers=headers, payload=body)
    with pytest.raises(RefusedError) as refused:
        await read_body(request, ClaimCoupon, timeout_seconds=1.0)
    assert refused.value.detail == BROKEN_BODY
