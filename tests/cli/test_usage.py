"""A wrong argument is told with its option, the rule in words, and an example: the same rule as over HTTP."""

import json
import re
from typing import Any

import pytest
from pydantic import ValidationError

from claimsvc.representations.coupons import ChangeCoupon
from claimsvc.representations.mistakes import mistakes_of
from tests.support.program import claimsvc_here

URL = "postgresql://nobody:nothing@127.0.0.1:1/none"


def told(*words: str) -> str:
    """What a command that is used wrongly says, without the frame around it."""
    done = claimsvc_here(*words, CLAIMSVC_DATABASE_URL=URL, CLAIMSVC_REDIS_URLS="redis://127.0.0.1:1")
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    shown = " ".join(re.sub("[│╭╮╰╯─]", " ", done.stderr).split())
    for words_of_programmers in ("Input should", "Value error", "valid integer", "match pattern", "Extra inputs"):
        assert words_of_programmers not in shown
    return shown


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--starts-at", "2026-12-01", "must be an RFC 3339 date-time with an offset, such as 2027-01-01T00:00:00Z"),
        ("--ends-at", "tomorrow", "must be an RFC 3339 date-time with an offset, such as 2027-01-01T00:00:00Z"),
        ("--rules", '{"foo":1}', "at /foo: this name is not allowed here. The allowed names are: `attributes`,"),
        ("--rules", '{"hold_not":["a"]}', "at /hold_not: this name is not allowed here. Did you mean `holds_not`?"),
        ("--rules", '{"holds":["a  b"]}', "at /holds/0: must be 1 to 255 characters of A-Z a-z 0-9 . _ -, not only"),
        (
            "--type",
            "a b",
            "must be a name that groups coupons: 1 to 255 characters of A-Z a-z 0-9 . _ -, not",
        ),
        ("--type", "\udcff", "must be text in UTF-8"),
        ("--benefit", '{"percent_off":100.5}', "at /percent_off: must be a number greater than 0 and at most 100."),
        ("--benefit", "15", "it must be a JSON object; must be an object with `percent_off`, or with"),
        ("--benefit", "{", "it is not JSON: Expecting property name"),
        ("--benefit", '{"text":"a","text":"b"}', '"text" appears more than once'),
        ("--benefit", '{"percent_off":NaN}', "NaN is not a JSON number"),
        ("--metadata", "[" * 60_000, "it is nested too deeply; must be an object of strings"),
        ("--metadata", '{"a":' * 20_000, "is longer than 65536 bytes; must be an object of strings"),
        ("--metadata", '{"a":' + "9" * 5000 + "}", "A number has more than 32 digits"),
        ("--metadata", '{"a":{}}', "at /a: must be a string of at most 8192 characters"),
        ("--per-user-limit", "0", "must be a whole number from 1 to 1000"),
        ("--amount", "many", "must be a whole number from 1 to 2147483647"),
    ],
)
def test_a_wrong_option_is_named_with_its_rule(option: str, value: str, says: str) -> None:
    shown = told("coupon", "change", "spring", option, value)
    assert re.search(rf"Invalid value for '?{option}'?: ", shown)
    assert says in shown


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("coupon", "create", "a  b", "--amount", "1"), "for NAME: must be 1 to 255 characters of A-Z a-z 0-9 . _ -"),
        (("coupon", "create", "a", "--amount", "1", "--strategy", "x"), "must be one of redlock, row_lock, counter"),
        (("codes", "generate", "a", "--count", "1", "--pattern", "a"), "for --pattern: must be 1 to 64 characters of"),
        (("codes", "generate", "a", "--count", "1", "--expires-at", "2027"), "for --expires-at: must be an RFC 3339"),
        (("user", "erase", "a b", "--yes"), "for ID: must be 1 to 255 visible ASCII characters"),
        (("codes", "redeem", "A-1", "--user", "a b"), "for --user: must be 1 to 255 visible ASCII characters"),
        (("codes", "redeem", "A-1", "--user", ""), "for --user: must be 1 to 255 visible ASCII characters"),
        (("claims", "list", "--user", "a b"), "for --user: must be 1 to 255 visible ASCII characters"),
        (("coupon", "list", "--type", "a b"), "for --type: must be 1 to 255 characters of A-Z a-z 0-9 . _ -"),
        (("coupon", "list", "--type", "\udcff"), "for --type: must be 1 to 255 characters of A-Z a-z 0-9 . _ -"),
        (("coupon", "list", "--search", "a/b"), "for --search: must be a part of the name, of A-Z a-z 0-9 . _ -"),
        (("locks", "release", "a", "--reason", " "), "for --reason: must be 1 to 500 characters on one line"),
        (("audit", "--since", "yesterday"), "for --since: must be an RFC 3339 date-time"),
        (("audit", "--subject-type", "Coupon"), "for --subject-type: must be a type such as coupon, claim or key"),
        (("key", "create", "--label", "a", "--scope", "x"), "must be one of coupons:write, claims:read"),
        (("lists", "load", "a", "other", "/dev/null"), "must be one of allow, deny"),
    ],
)
def test_so_is_a_wrong_argument_of_any_command(words: tuple[str, ...], says: str) -> None:
    assert says in told(*words)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("starts_at", "2026-12-01"),
        ("type", "a b"),
        ("benefit", {"amount_off": 5}),
        ("benefit", {}),
        ("metadata", {"a": [1]}),
        ("rules", {"attributes": [{"name": "a", "source": "x"}]}),
        ("rules", {"holds": [".."]}),
    ],
)
def test_the_rule_is_that_of_http(field: str, value: Any) -> None:
    with pytest.raises(ValidationError) as refused:
        ChangeCoupon.model_validate({field: value})
    [mistake] = mistakes_of(refused.value, ChangeCoupon)
    given = value if isinstance(value, str) else json.dumps(value)
    shown = told("coupon", "change", "spring", "--" + field.replace("_", "-"), given)
    assert mistake.message[1:].removesuffix(".") in shown
