"""Requests that are not HTTP, of the wrong kind, too large, or late."""

import gzip
from collections.abc import Iterator

from claimsvc.http.server.wire import MAX_BODY_BYTES
from tests.faults.hostile.case import CLAIM, Case, post

_HEAD = b"POST /api/coupons/claim HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
_GET = b"GET /livez HTTP/1.1\r\n"
_CHUNKED = _HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
_SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
_NOT_HTTP = {
    "conflicting Content-Length": _HEAD + b"Content-Length: 43\r\nContent-Length: 44\r\n\r\n" + CLAIM,
    "Content-Length, shorter and longer": _HEAD + b"Content-Length: 0\r\nContent-Length: 36\r\n\r\n" + _SMUGGLED,
    "listed Content-Length": _HEAD + b"Content-Length: 43, 43\r\n\r\n" + CLAIM,
    "negative Content-Length": _HEAD + b"Content-Length: -1\r\n\r\n" + CLAIM,
    "signed Content-Length": _HEAD + b"Content-Length: +43\r\n\r\n" + CLAIM,
    "hexadecimal Content-Length": _HEAD + b"Content-Length: 0x2b\r\n\r\n" + CLAIM,
    "blank within Content-Length": _HEAD + b"Content-Length: 4 3\r\n\r\n" + CLAIM,
    "letters in Content-Length": _HEAD + b"Content-Length: 43abc\r\n\r\n" + CLAIM,
    "full-width Content-Length": _HEAD + b"Content-Length: \xef\xbc\x94\xef\xbc\x93\r\n\r\n" + CLAIM,
    "empty Content-Length": _HEAD + b"Content-Length: \r\n\r\n" + CLAIM,
    "immense Content-Length": _HEAD + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n" + CLAIM,
    "Content-Length that wraps at 64 bits": _HEAD + b"Content-Length: 18446744073709551659\r\n\r\n" + CLAIM,
    "CL + TE": _HEAD + b"Content-Length: 43\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + _SMUGGLED,
    "TE + CL": _HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + _SMUGGLED,
    "CL + TE, in other cases": _HEAD + b"content-length: 5\r\nTRANSFER-encoding: CHUNKED\r\n\r\n0\r\n\r\n" + _SMUGGLED,
    "unknown Transfer-Encoding": _HEAD + b"Transfer-Encoding: gzip\r\n\r\n",
    "xchunked": _HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked, identity": _HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "chunked, then gzip": _HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
    "chunked with a vertical tab": _HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunked in quotes": _HEAD + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "malformed chunk": _CHUNKED + b"zz\r\n",
    "chunk size that wraps at 64 bits": _CHUNKED + b"10000000000000005\r\n12345\r\n0\r\n\r\n",
    "chunk size without end": _CHUNKED + b"f" * 5000,
    "signed chunk size": _CHUNKED + b"+5\r\n12345\r\n0\r\n\r\n",
    "negative chunk size": _CHUNKED + b"-1\r\n12345\r\n0\r\n\r\n",
    "0x chunk size": _CHUNKED + b"0x5\r\n12345\r\n0\r\n\r\n",
    "blank before a chunk size": _CHUNKED + b" 5\r\n12345\r\n0\r\n\r\n",
    "bare LF after a chunk size": _CHUNKED + b"5\n12345\r\n0\r\n\r\n",
    "chunk longer than it says": _CHUNKED + b"5\r\n1234567\r\n0\r\n\r\n",
    "bare CR in a chunk extension": _CHUNKED + b"5;a=\rb\r\n12345\r\n0\r\n\r\n",
    "Content-Length as a trailer": _CHUNKED + b"2b\r\n" + CLAIM + b"\r\n0\r\nContent-Length: 5\r\n\r\n",
    "missing Host": _GET + b"\r\n",
    "doubled Host": _GET + b"Host: a\r\nHost: b\r\n\r\n",
    "the same Host twice": _GET + b"Host: a\r\nHost: a\r\n\r\n",
    "HTTP/0.9": b"GET /livez\r\n\r\n",
    "HTTP/0.9, with its version": b"GET /livez HTTP/0.9\r\nHost: x\r\n\r\n",
    "HTTP/1.2": b"GET /livez HTTP/1.2\r\nHost: x\r\n\r\n",
    "HTTP/2.0": b"GET /livez HTTP/2.0\r\nHost: x\r\n\r\n",
    "HTTP/11": b"GET /livez HTTP/11\r\nHost: x\r\n\r\n",
    "HTTP/1.1 in lower case": b"GET /livez http/1.1\r\nHost: x\r\n\r\n",
    "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "unknown method": b"NONSENSE / HTTP/1.1\r\nHost: x\r\n\r\n",
    "lower-case method": b"get / HTTP/1.1\r\nHost: x\r\n\r\n",
    "method with a slash": b"GET/ /livez HTTP/1.1\r\nHost: x\r\n\r\n",
    "no path": b"GET HTTP/1.1\r\nHost: x\r\n\r\n",
    "blank within the path": b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "SSH": b"SSH-2.0-OpenSSH_9.9\r\n",
    "space before a colon": _GET + b"Host : x\r\n\r\n",
    "header without a colon": _GET + b"Host: x\r\nnonsense\r\n\r\n",
    "header without a name": _GET + b"Host: x\r\n: y\r\n\r\n",
    "blank in a header's name": _GET + b"Host: x\r\nA B: y\r\n\r\n",
    "folded header": _GET + b"Host: x\r\n folded: y\r\n\r\n",
    "folded header with a tab": _GET + b"Host: x\r\nA: b\r\n\tc\r\n\r\n",
    "folded Transfer-Encoding": _HEAD + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "folded first header": b"GET /livez HTTP/1.1\r\n Host: x\r\n\r\n",
    "NUL in a header": _GET + b"Host: x\r\nA: b\x00c\r\n\r\n",
    "NUL in a header's name": _GET + b"Host: x\r\nA\x00: c\r\n\r\n",
    "bare CR in a header": _GET + b"Host: x\r\nA: b\rC: d\r\n\r\n",
    "bare line feeds": b"GET /livez HTTP/1.1\nHost: x\n\n",
    "bare line feed between headers": _GET + b"Host: x\nA: b\r\n\r\n",
    "bare line feed at the end": _GET + b"Host: x\r\nA: b\n\n",
    "NUL in the path": b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
    "raw bytes in the path": b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
    "escape sequence in the path": b"GET /\x1b[31m HTTP/1.1\r\nHost: x\r\n\r\n",
    "port out of range": b"GET http://x:99999/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "broken IPv6 address": b"GET http://[::1/ HTTP/1.1\r\nHost: x\r\n\r\n",
}
_CONTENT_TYPES: list[str | None] = [
    *(None, "", "json", "application/", "*/*", "text/plain", "application/xml", "text/json"),
    *("application/x-www-form-urlencoded", "multipart/form-data; boundary=x"),
    *(f"application/json; charset={each}" for each in ("utf-16", "latin-1", "nonsense", "utf-7")),
]
_ENCODINGS = ["br", "zstd", "deflate", "compress", "nonsense", "gzip, gzip", "", "\u00e9"]
_BROKEN_GZIP = {
    "empty": b"",
    "plain": CLAIM,
    "truncated": gzip.compress(CLAIM)[:-3],
    "of a wrong sum": gzip.compress(CLAIM)[:-8] + b"\0" * 8,
    "followed by more": gzip.compress(CLAIM) + b"more",
    "of two members": gzip.compress(CLAIM) * 2,
}
_OVER = b'{"user_id": "' + b"a" * MAX_BODY_BYTES + b'"}'
_CHUNK = b"1000\r\n" + b" " * 0x1000 + b"\r\n"
_TOO_LARGE = {
    "over by a little": post(_OVER),
    "blanks": post(b" " * (MAX_BODY_BYTES + 1)),
    "5 MB": post(b"a" * 5_000_000),
    "announced": _HEAD + b"Content-Length: 65537\r\n\r\n",
    "announced with 2^63 - 1": _HEAD + b"Content-Length: 9223372036854775807\r\n\r\n",
    "announced, to be asked for": _HEAD + b"Expect: 100-continue\r\nContent-Length: 65537\r\n\r\n",
    "chunked": _CHUNKED + _CHUNK * 17 + b"0\r\n\r\n",
}
_INFLATED = {"gzip that is over": _OVER, "gzip bomb": b" " * 50_000_000}
_LARGE_HEADERS = {
    "large value": b"A: " + b"b" * 9000 + b"\r\n",
    "large name": b"A" * 9000 + b": b\r\n",
    "too many": b"A: b\r\n" * 101,
    "10,000 of them": b"A: b\r\n" * 10_000,
    "without end": b"A: " + b"b" * 500_000,
    "large cookie": b"Cookie: " + b"a=b;" * 3000 + b"\r\n",
}
_STALLED = {
    "body, announced": _HEAD + b"Content-Length: 43\r\n\r\n",
    "body, begun": _HEAD + b"Content-Length: 43\r\n\r\n" + CLAIM[:20],
    "body, chunked": _CHUNKED,
    "body, within a chunk": _CHUNKED + b"2b\r\n{",
    "body, without its last chunk": _CHUNKED + b"2b\r\n" + CLAIM + b"\r\n",
    "request line": b"GET /livez HT",
    "header": b"GET /livez HTTP/1.1\r\nHost: x\r\nX-A: ",
    "one byte": b"G",
}


def messages() -> Iterator[Case]:
    for name, data in _NOT_HTTP.items():
        yield Case(f"not HTTP: {name}", data, 400, "bad-request", ends=True)
    for kind in _CONTENT_TYPES:
        yield Case(f"content type: {kind}", post(CLAIM, content_type=kind), 415, "unsupported-media-type")
    for encoding in _ENCODINGS:
        data = post(CLAIM, Content_Encoding=encoding)
        yield Case(f"encoding: {encoding}", data, 415, "unsupported-media-type")
    for name, body in _BROKEN_GZIP.items():
        yield Case(f"gzip: {name}", post(body, Content_Encoding="gzip"), 400, "bad-request")
    for name, data in _TOO_LARGE.items():
        yield Case(f"too large: {name}", data, 413, "body-too-large", ends=True)
    for name, body in _INFLATED.items():
        data = post(gzip.compress(body), Content_Encoding="gzip")
        yield Case(f"too large: {name}", data, 413, "body-too-large", ends=True)
    for name, headers in _LARGE_HEADERS.items():
        data = _GET + b"Host: x\r\n" + headers + b"\r\n"
        yield Case(f"headers: {name}", data, 431, "headers-too-large", ends=True)
    for name, data in _STALLED.items():
        yield Case(f"stalled: {name}", data, 408, "request-timeout", ends=True)
    for name, expectation in {"nonsense": "nonsense", "not ASCII": "\u00e9"}.items():
        yield Case(f"expectation: {name}", post(CLAIM, Expect=expectation), 417, "expectation-failed")
