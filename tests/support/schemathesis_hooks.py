"""What Schemathesis leaves out: bodies with contradicting rules, which a schema cannot tell from valid ones."""

from typing import Any

import schemathesis


@schemathesis.hook
def filter_case(_: schemathesis.HookContext, case: schemathesis.Case[Any]) -> bool:
    return not (isinstance(case.body, dict) and _contradict(case.body.get("rules")))


def _contradict(rules: Any) -> bool:
    """Whether rules might demand what nobody can meet; tests/http/test_warnings.py has what is refused."""
    if not isinstance(rules, dict):
        return False
    about_attributes, holds, holds_not = (rules.get(name, []) for name in ("attributes", "holds", "holds_not"))
    if isinstance(holds, list) and isinstance(holds_not, list) and any(name in holds_not for name in holds):
        return True
    return isinstance(about_attributes, list) and any(
        isinstance(rule, dict) and len({"one_of", "none_of", "at_least", "at_most"} & rule.keys()) > 1
        for rule in about_attributes
    )
