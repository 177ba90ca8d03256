"""Conversations are counted exactly, however their bytes arrive."""

import struct

import pytest

from tests.faults.sweep.protocols import HttpConversation, PostgresConversation, RedisConversation, resp_length


@pytest.mark.parametrize(
    "value",
    [
        b"+OK\r\n",
        b":42\r\n",
        b"_\r\n",
        b"$-1\r\n",
        b"$5\r\na\r\nbc\r\n",
        b"*2\r\n$1\r\na\r\n*1\r\n:1\r\n",
        b"%1\r\n+key\r\n~1\r\n,1.5\r\n",
        b"|1\r\n+ttl\r\n:9\r\n+OK\r\n",
    ],
)
def test_a_value_of_redis_ends_where_it_ends_and_not_before(value: bytes) -> None:
    assert resp_length(value) == resp_length(value + b"+more\r\n") == len(value)
    assert [resp_length(value[:cut]) for cut in range(1, len(value))] == [0] * (len(value) - 1)


def test_commands_are_told_apart_and_each_has_its_answer() -> None:
    conversation = RedisConversation()
    first = b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n"
    assert conversation.requests(first[:7]) == []
    get, hello = conversation.requests(first[7:] + b"*1\r\n$5\r\nHELLO\r\n")
    assert (get.kind, hello.kind) == ("GET", "HELLO")
    conversation.forwarded(get)
    conversation.forwarded(hello)
    pushed, nothing, greeting = conversation.replies(b">1\r\n+psst\r\n$-1\r\n+hi\r\n")
    assert (pushed.of, nothing.of, greeting.of) == (None, get, hello)


def message(letter: bytes, body: bytes = b"") -> bytes:
    return letter + struct.pack("!i", 4 + len(body)) + body


def started() -> PostgresConversation:
    conversation = PostgresConversation()
    [startup] = conversation.requests(struct.pack("!ii", 8, 196608))
    conversation.forwarded(startup)
    [_, ready] = conversation.replies(message(b"R", b"\0\0\0\0") + message(b"Z", b"I"))
    assert ready.ended == (startup,)
    return conversation


PIPELINE = (
    message(b"P", b"one\0SELECT 1 AS a FROM b\0\0\0")
    + message(b"B", b"\0one\0\0\0\0\0\0\0")
    + message(b"E", b"\0\0\0\0\0")
    + message(b"S")
)


def test_the_messages_of_a_pipeline_are_told_apart_and_each_has_its_answer() -> None:
    conversation = started()
    parse, bind, execute, sync = requests = conversation.requests(PIPELINE)
    assert [request.kind for request in requests] == [
        "Parse SELECT 1 AS a",
        "Bind SELECT 1 AS a",
        "Execute SELECT 1 AS a",
        "Sync",
    ]
    for request in requests:
        conversation.forwarded(request)
    told = b"".join(message(letter) for letter in (b"1", b"2", b"D", b"D", b"C")) + message(b"Z", b"I")
    replies = conversation.replies(told)
    assert [reply.of for reply in replies] == [parse, bind, execute, execute, execute, sync]
    assert [reply.ended for reply in replies] == [(parse,), (bind,), (), (), (execute,), (sync,)]


def test_what_an_error_skips_ends_with_the_sync_after_it() -> None:
    conversation = started()
    parse, bind, execute, sync = requests = conversation.requests(PIPELINE)
    for request in requests:
        conversation.forwarded(request)
    error, ready = conversation.replies(message(b"E", b"SERROR\0\0") + message(b"Z", b"I"))
    assert (error.ended, ready.ended) == ((parse,), (bind, execute, sync))


def test_an_http_message_ends_with_its_body() -> None:
    conversation = HttpConversation()
    text = b"POST /claim HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}"
    assert conversation.requests(text[:-1]) == []
    assert [request.kind for request in conversation.requests(text[-1:])] == ["HTTP POST /claim"]
