"""What the audit tells of a change: each field that got another value, and nothing that could name a user."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from claimsvc.domain import AttributeRule, Campaign, Coupon, EligibilityRules, StrategyName
from claimsvc.domain.coupon_changes import changes_of

NOW = datetime(2026, 11, 30, 9, tzinfo=UTC)
COUPON = Coupon("spring", 5, 5, StrategyName.REDLOCK, NOW)
OLD = Campaign(starts_at=NOW, type="welcome", benefit={"percent_off": 10}, metadata={"owner": "alice"})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"amount": 9}, {"amount": {"old": 5, "new": 9}}),
        ({"amount": 5, "type": "welcome"}, {}),
        ({"starts_at": None}, {"starts_at": {"old": "2026-11-30T09:00:00Z", "new": None}}),
        ({"benefit": {"percent_off": 15}}, {"benefit": {"old": {"percent_off": 10}, "new": {"percent_off": 15}}}),
        ({"metadata": {"owner": "bob", "a": 1}}, {"metadata": {"old": "1 members", "new": "2 members"}}),
        (
            {"rules": EligibilityRules((AttributeRule("sub", one_of=("alice", "bob"), at_most=3),), ("winter",))},
            {
                "rules": {
                    "old": None,
                    "new": {
                        "attributes": [{"name": "sub", "source": "request", "one_of": "2 values", "at_most": 3}],
                        "holds": ["winter"],
                    },
                }
            },
        ),
    ],
)
def test_old_and_new_values_are_told_without_what_may_name_a_user(change: dict[str, Any], told: Any) -> None:
    found = changes_of(COUPON, OLD, change)
    assert found == told
    for user in ("alice", "bob"):
        assert user not in json.dumps(found)
