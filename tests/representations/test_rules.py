"""Rules: one that nobody can meet is refused, and no other."""

from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from claimsvc.domain import AttributeRule
from claimsvc.representations import rules as models

VALUES = st.sampled_from([0, 1, 1.0, 2, 2.5, True, False, "", "1", "KR"])
BOUNDS = st.none() | st.sampled_from([0, 1, 1.5, 2, 3])


@settings(deadline=None)
@given(
    st.none() | st.lists(VALUES, min_size=1, max_size=3),
    st.none() | st.lists(VALUES, min_size=1, max_size=3),
    BOUNDS,
    BOUNDS,
)
@example(None, [1.0], 1, 1)
@example(None, [True], 1, 1)
def test_a_rule_is_refused_if_and_only_if_no_value_meets_it(
    one_of: Any, none_of: Any, at_least: Any, at_most: Any
) -> None:
    document = {"name": "a", "one_of": one_of, "none_of": none_of, "at_least": at_least, "at_most": at_most}
    try:
        rule = models.AttributeRule.model_validate(document).rule()
    except ValidationError:
        rule = AttributeRule(
            "a", one_of=one_of and tuple(one_of), none_of=none_of and tuple(none_of), at_least=at_least, at_most=at_most
        )
        assert not any(map(rule.admits, [*(one_of or ()), -1, 0, 0.5, 1, 1.25, 2, 2.75, 3, 4, True, "another"]))
    else:
        among = one_of or [value / 8 for value in range(-9, 33)] + ["another"]
        assert any(map(rule.admits, among))
