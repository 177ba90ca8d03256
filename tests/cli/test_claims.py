"""`claimsvc claims list`: a user's claims, newest first."""

import json

from tests.support.databases import administrate
from tests.support.program import claimsvc_here


def test_a_user_s_claims_are_listed(database_url: str) -> None:
    def claims(*arguments: str) -> tuple[int, str]:
        done = claimsvc_here("claims", "list", *arguments, CLAIMSVC_DATABASE_URL=database_url)
        return done.returncode, done.stdout + done.stderr

    for name in ("spring", "autumn"):
        options = ("--amount", "5", "--benefit", '{"percent_off": 15}')
        claimsvc_here("coupon", "create", name, *options, CLAIMSVC_DATABASE_URL=database_url)
    administrate(
        database_url,
        """
        INSERT INTO user_claims (id, coupon_name, user_id, state, claimed_at, ended_at) VALUES
            (gen_random_uuid(), 'spring', 'ann', 'active', '2026-01-01', NULL),
            (gen_random_uuid(), 'autumn', 'ann', 'cancelled', '2026-01-02', '2026-01-03'),
            (gen_random_uuid(), 'autumn', 'bob', 'active', '2026-01-02', NULL);
        INSERT INTO codes (coupon_name, code, claim_id) SELECT coupon_name, 'C-1', id FROM user_claims
            WHERE coupon_name = 'spring'
        """,
    )
    status, told = claims("--user", "ann", "--json")
    found = json.loads(told)
    assert status == 0
    assert [(each["coupon_name"], each["state"], each["code"]) for each in found] == [
        ("autumn", "cancelled", None),
        ("spring", "active", "C-1"),
    ]
    assert found[0]["benefit"] == {"percent_off": 15}
    assert [each["state"] for each in json.loads(claims("--user", "ann", "--state", "active", "--json")[1])] == [
        "active"
    ]
    status, told = claims("--user", "ann", "--limit", "1")
    assert (status, "autumn" in told, "spring" in told) == (0, True, False)
    assert claims("--user", "eve") == (0, "There is no such claim.\n")
    status, told = claims("--user", "a b")
    assert (status, "visible ASCII" in told) == (2, True)
    assert claims("--user", "ann", "--state", "gone")[0] == 2
