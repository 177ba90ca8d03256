"""A document has the same meaning, or the same mistake, whichever of the two parsers reads it."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from claimsvc.representations import strict_json
from claimsvc.representations.strict_json import BODY, InvalidJsonError, _decode_strictly, decode_object

# Names and texts as they are written. Some are equal although they are written differently.
_TEXTS = st.sampled_from(
    ['"a"', '"b"', '"\\u0061"', '""', '"\\""', '"\\u0022"', '"\\\\"', '"\\n"', '"\n"', '"é"', '"\\ud83d\\ude00"']
) | st.text(max_size=5).map(json.dumps)
_LONE_SURROGATES = st.sampled_from(['"\\ud800"', '"\\udc00x"'])
_NUMBERS = st.sampled_from(
    [
        *("0", "-0", "7", "01", "-", "5.0", "0.5", "1e2", "1E400", "1e-400", "-0.0", "NaN", "Infinity", "0x1", "+1"),
        *map(str, (2**53, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1)),
        *("1" * 32, "1" * 33),
    ]
)
_SPACES = st.sampled_from(["", "", " ", "\n", "\t"])


def _object(members: Sequence[tuple[str, str, str]]) -> str:
    return "{" + ",".join(f"{name}{space}:{value}" for name, space, value in members) + "}"


_VALUES = st.recursive(
    _TEXTS | _LONE_SURROGATES | _NUMBERS | st.sampled_from(["true", "false", "null", "nul", ""]),
    lambda values: (
        st.lists(values, max_size=4).map(lambda each: "[" + ",".join(each) + "]")
        | st.lists(st.tuples(_TEXTS, _SPACES, values), max_size=4).map(_object)
    ),
    max_leaves=12,
)
_DOCUMENTS = st.lists(st.tuples(_TEXTS, _SPACES, _VALUES), max_size=4).map(_object) | _VALUES


def _result(read: Callable[..., dict[str, Any]], raw: bytes) -> str:
    # The form shows types and the order of names, which `==` does not.
    try:
        return repr(read(raw, BODY))
    except InvalidJsonError as error:
        return error.detail


@example('{"a":1,"a":{"b":"x"}}', "")
@example('{"a":{"b":"\\"","b":2}}', "")
@example('{"a":{"b":[{"c":[{"d":1,"d":2}]}]}}', "")
@example('{"a":[18446744073709551616]}', "")
@given(_DOCUMENTS, st.sampled_from(["", "", "", " ", "}", '"', "\ufeff"]))
def test_both_parsers_agree(document: str, end: str) -> None:
    raw = (document + end).encode("utf-8", "surrogatepass")
    assert _result(decode_object, raw) == _result(_decode_strictly, raw)


def test_nested_objects_need_one_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strict_json, "_decode_strictly", None)
    document = {"user_id": "ann", "attributes": {"country": "KR", "age": 19, "is_new": True, "of": None, "in": ["a"]}}
    assert decode_object(json.dumps(document).encode()) == document
