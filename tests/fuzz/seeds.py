"""The inputs that fuzzing begins with: what is usual, what was found by trying, and what failed once."""

from collections.abc import Mapping

from claimsvc.http.routes import ROUTES

_UUID = b"019b2c5e-7a31-7c42-9f0e-2d4b8a6c1e90"
_CLAIM = b'{"user_id": "ann", "coupon_name": "plenty"}'
_TIME = b"2027-01-01T00:00:00.5+09:00"
_PARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
_HOSTILE_JSON = (
    *(b'{"user_id":1e-99999999999999999999}', b'{"a":0e99999999999999999999}', b'{"a":5.0,"b":1e999}', b'{"a":NaN}'),
    *(b'{"a":' * 300, b'{"a":[' * 300, b'{"a":1,"a":2}', b'{"a":"\\ud800"}', b'{"a":"\\u0000"}', b"\xef\xbb\xbf{}"),
    *(b'{"a":' + b"9" * 40 + b"}", b'{"a":' + b"1" * 5000 + b"}", b'{"a":-0.0}', b"{}", b"", b"[1]", b'{"\xff":1}'),
)
_BODIES = (
    _CLAIM,
    b'{"user_id": "ann", "type": null, "hold_seconds": 60, "attributes": {"country": "KR", "age": 20, "vip": true}}',
    b'{"name": "new", "amount": 5, "strategy": "counter", "starts_at": "'
    + _TIME
    + b'", "benefit": {"percent_off": 10}}',
    b'{"amount": 5, "benefit": {"amount_off": 5, "currency": "KRW"}, "metadata": {"a": 1.5, "b": null}, "paused": true}',
    b'{"benefit": {"text": "a free coffee"}, "rules": {"holds": ["a"], "attributes": [{"name": "a", "one_of": [1]}]}}',
    b'{"rules": {"attributes": [{"name": "a", "source": "token", "at_least": 1, "at_most": 2e5}], "holds_not": ["b"]}}',
    b'{"count": 5, "pattern": "AAAA-9999", "expires_at": "' + _TIME + b'"}',
    b'{"reason": "because"}',
)
_ROWS = (
    b"code,expires_at\nHKTA-2947," + _TIME + b"\nMCWE-3358\n",
    b'\xef\xbb\xbfCode\r\n"a","2027-01-01T00:00:00Z"\r\n\r\n"b',
    b'{"code": "HKTA-2947", "expires_at": "' + _TIME + b'"}\n{"code": "a"}',
    "Coupon code\n쿠폰,1\n가나다\n".encode(),
    b"a" * 5000,
    b"\xff\n\x00\n,,,\n",
    b"Code,type,percent_off,amount_off,currency,text\nA,vip,15,,,\nB,,,5000.0,KRW,\nC,,,,,'=1%3B\n",
    b'{"code": "A", "type": "vip", "benefit": {"percent_off": 1.5}}\n{"code": "B", "benefit": {"text": "tea"}}',
)
_USERS = (
    b"user_id\nann\nben\n",
    b"ann\r\nben",
    b'user_id,name\n"ann","A"\nben,B\n',
    b'{"user_id": "ann"}\n{"user_id": "ben"}\n',
    b"\xef\xbb\xbfUSER_ID\nann\nuser_id\n",
    b"userid;a\n",
    b"name,user_id\na\n",
)
_KEYS = (
    b'{"kty":"EC","crv":"P-384","x":"AA","y":"AA","kid":"a"}',
    b'{"kty":"RSA","n":"AQAB","e":"AQAB","alg":"RS256","use":"sig","key_ops":["verify"]}',
    b'{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}',
)
_HEADS = (
    b"POST /api/coupons/claim HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 43\r\n\r\n"
    + _CLAIM,
    b"POST /api/coupons/claim HTTP/1.1\r\nHost: x\r\n\x00Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
    b"\r\n2b\r\n" + _CLAIM + b"\r\n0\r\n\r\n",
    b"GET /api/coupons?limit=5&search=a HTTP/1.1\r\nHost: x\r\nX-Request-ID: a\r\n\r\nGET /livez HTTP/1.0\r\n\r\n",
    b"GET /%2e%2e/%00?a=%ff&a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n",
    b"PUT /api/coupons/plenty/allow-list HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nUpgrade: h2c\r\n\r\n",
    b"BREW / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"GET / HTTP/3.0\r\n\r\n",
)
_LINES = (
    b"Content-Type: application/json; charset=utf-8",
    b"Content-Type: application/json" + b"(" * 100,
    b'Idempotency-Key: "a\\"b"',
    b"Content-Encoding: gzip",
    b"Cookie: a=b; c\nForwarded: for=1;by=2\nX-Forwarded-For: 1.2.3.4, ::1",
    b"traceparent: " + _PARENT + b"\ntracestate: a=b,c=d\nBaggage: a=b",
    b"Authorization: Bearer a.b.c",
    b"Prefer: respond-async, wait=5\nIf-None-Match: *\nRange: bytes=0-",
    b"Expect: 100-continue",
    b"Origin: https://shop.example\nAccess-Control-Request-Method: POST",
)


def _of_routes() -> tuple[bytes, ...]:
    bodies = (*_BODIES, *_ROWS[:3], *_USERS[:3])
    usual = [bytes([number]) + b"\n\n" + bodies[number % len(bodies)] for number in range(len(ROUTES))]
    queries = (b"?limit=5", b"?cursor=2e61", b"?atomic=false", b"?a=%ff", b"/%2e", b"?reason=x", b"?verbose")
    headed = [
        bytes([number]) + queries[number % len(queries)] + b"\n" + line + b"\n\n" + _CLAIM
        for number, line in enumerate(_LINES * 3)
    ]
    return (*usual, *headed)


SEEDS: Mapping[str, tuple[bytes, ...]] = {
    "content_type": (
        *(b"application/json", b"application/json; charset=utf-8", b'text/csv;charset="UTF-8"', b"text/plain; x"),
        *(b"application/problem+json;a=b;charset=us-ascii", b"application/json" + b";" * 200, b'a/b;c="\\', b"\xff/a"),
    ),
    "strict_json": (*_HOSTILE_JSON, *_BODIES),
    "bodies": (*_BODIES, *_HOSTILE_JSON),
    "gzip": (
        bytes.fromhex("1f8b08000000000002ffab56ca4d552ab6520200d4d4b1f508000000"),
        b"\x1f\x8b",
        b"\x1f\x8b\x08\x1f",
    ),
    "code_files": _ROWS,
    "user_lists": _USERS,
    "queries": (
        *(
            b"limit=5&cursor=2e61",
            b"search=a&type=b&state=open,paused",
            b"cursor=" + b"00" * 24,
            b"atomic=false",
            b"%ff",
        ),
        *(
            b"subject_type=claim&since=2027-01-01T00:00:00Z",
            b"verbose",
            b"a=1&a=2",
            b"limit=1_0",
            b"reason=%E3%85%A4&;",
        ),
    ),
    "cursors": (
        b"73756d6d65722d73616c65",
        b"00064680d83b8a00019b2c5e7a317c429f0e2d4b8a6c1e90",
        b"02" + b"f" * 46,
        b"2e2e",
    ),
    "code_patterns": ("가-A9".encode(), b"AAAA-9999", b"_" * 64, b"A", b""),
    "codes_and_times": (
        *("가나-A".encode(), "가".encode(), b"..a", b"...", _TIME, b"9999-12-31T23:59:59.9999999Z"),
        *(b"0001-01-01T00:00:00+23:59", b"2030-W01-1T00:00:00Z", "\u0301\u0323".encode() * 100, "a\u202e".encode()),
    ),
    "idempotency_keys": (_UUID, b'"a b"', b'"a\\"b\\\\"', b'" "', b"a" * 255, b"\xff", b'"', b""),
    "preferences": (
        *(b"respond-async, wait=5", b'wait="7"; a=b, Respond-Async=""', b'a="x,\\"respond-async"\nwait = 3', b""),
        *(b"foo;respond-async", b"a b, wait=1", b",, ;", b'a="' + b"\\" * 50, b"wait=" + b"9" * 99, b"wait=\xd9\xa3"),
    ),
    "forwarded_for": (
        *(
            b"1.2.3.4, 10.0.0.2",
            b"[2001:db8::1]:443",
            b"10.0.0.1:80,::ffff:1.2.3.4",
            b"," * 50,
            b"fd00::1%eth0,fd00::2",
        ),
        *(b"a\n10.0.0.1", b"1.2.3.4:"),
    ),
    "trace_context": (
        _PARENT,
        _PARENT + b"\na=b,c=d",
        _PARENT + b"-x",
        b"ff-0-0-0\n=,",
        _PARENT + b"\n" + b"a=b," * 40,
    ),
    "tokens": (
        *(b"e30", b"eyJhbGciOiJFUzI1NiIsImtpZCI6Im9uZSJ9", b"eyJhbGciOiJub25lIn0", b"W1tb" * 100, b"a.b.c", b"", b"="),
        *(b"eyJhbGciOiJFUzI1NiIsImI2NCI6ZmFsc2UsImNyaXQiOlsiYjY0Il19", b"eyJleHAiOjFlOTk5fQ", b"\xff\xfe"),
    ),
    "key_sets": _KEYS,
    "client_answers": (
        b'5\n{"id":"a","coupon_name":"b","user_id":"c","state":"active","claimed_at":"2027-01-01T00:00:00Z","x":1}',
        b'\n{"name":"a","amount":1,"remaining_amount":1,"strategy":"redlock","created_at":"2027-01-01T00:00:00Z"}',
        b'Wed, 21 Oct 2015 07:28:00 GMT\n{"items":[],"next_cursor":null}',
        b'60\n{"type":"/problems/not-started","title":"a","detail":"b","request_id":"c","starts_at":"2027-01-01T00:00:00Z"}',
        b'\n{"type":"/problems/already-claimed","title":"a","detail":"b","request_id":"c","claim":{"id":"a"}}',
        b"9" * 400 + b"\n" + b"[" * 5000,
        b"1 Jan 99999999999999999999 00:00:00 +99999999999999\n1" + b"0" * 5000,
        b"Mon, 01 Jan 2027 00:00:00 +9999999999999999999\n",
        b"(" * 300 + b"\n",
    ),
    "requests": _HEADS,
    "routes": _of_routes(),
}
