"""The sale of a batch as one statement decides what the full path decides, and writes the same."""

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import psycopg
import pytest
import uuid_utils.compat as uuid_utils

from claimsvc.claiming.combining.messages import handed_batch
from claimsvc.domain import (
    AlreadyClaimed,
    Attempt,
    AttributeRule,
    AuditEntry,
    Campaign,
    Claimed,
    ClaimOptions,
    EligibilityRules,
    IdempotencyKey,
    StrategyName,
)
from claimsvc.domain.stored_answers import decode
from claimsvc.ports import AllClaimed
from claimsvc.postgres import Repositories
from claimsvc.postgres.claiming import full_path, sale
from claimsvc.postgres.claiming.fast_path_window import UPDATE_PLAIN_UNTIL
from claimsvc.postgres.claiming.full_path import FullPath
from claimsvc.postgres.claiming.sale_statement import Shape, selling
from tests.support.databases import administrate
from tests.support.storage import attempts, create_coupon, kinds, learn_terms, remaining
from tests.support.waiting import until

_RULES = EligibilityRules((AttributeRule("country", one_of=("KR", "JP")),))
_USERS = ("ada", "ben", "cleo", "dora", "emil", 'f"ay\\')


def once(key: str, caller: str = "anybody", request_id: str = "request") -> IdempotencyKey:
    return IdempotencyKey(caller, key, hashlib.sha256(key.encode()).digest(), request_id)


def path_of(storage: Repositories) -> FullPath:
    return storage.admission._full_path


@pytest.fixture
def sales(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of claims of each sale that gave all."""
    sold: list[int] = []
    whole = sale.sell

    async def counted(*arguments: Any) -> Any:
        own, handed = await whole(*arguments)
        sold.append(len(own))
        return own, handed

    monkeypatch.setattr(full_path, "sell", counted)
    return sold


@dataclass(frozen=True)
class State:
    """A small state of a coupon, and a batch that comes upon it."""

    campaign: Campaign
    amount: int
    codes: bool
    changes: Sequence[str]
    before: Sequence[tuple[str, ClaimOptions]]
    meanwhile: Sequence[str]
    batch: Sequence[tuple[str, ClaimOptions]]
    handed: Sequence[tuple[str, ClaimOptions]]


_CHANGES = (
    "UPDATE user_claims SET held_until = now() - interval '1 s' WHERE coupon_name = '{0}' AND held_until IS NOT NULL",
    "UPDATE codes SET expires_at = now() - interval '1 s' WHERE coupon_name = '{0}' AND code LIKE '%-2'",
    "UPDATE codes SET expires_at = now() + interval '1 h' WHERE coupon_name = '{0}' AND code LIKE '%-3'",
    "UPDATE codes SET own_type = 'gold', benefit = '{{\"percent_off\": 5}}' WHERE coupon_name = '{0}'",
    """
    WITH ended AS (
        UPDATE user_claims SET state = 'cancelled', ended_at = now()
        WHERE coupon_name = '{0}' AND user_id = 'ada' AND held_until IS NULL AND state = 'active'
            AND NOT EXISTS (SELECT FROM codes WHERE coupon_name = '{0}')
        RETURNING id
    )
    UPDATE coupons SET remaining_amount = remaining_amount + units, ended_count = coalesce(ended_count, 0) + units
    FROM (SELECT count(*) AS units FROM ended) AS ended WHERE name = '{0}'
    """,
    "UPDATE campaigns SET paused = true WHERE coupon_name = '{0}'",
    "UPDATE campaigns SET starts_at = NULL, ends_at = now() - interval '1 s' WHERE coupon_name = '{0}'",
    "UPDATE campaigns SET ends_at = NULL, starts_at = now() + interval '1 h' WHERE coupon_name = '{0}'",
    "UPDATE campaigns SET per_user_limit = 1, had_higher_limit = true WHERE coupon_name = '{0}'",
    "UPDATE campaigns SET claims_per_user = 1 WHERE coupon_name = '{0}'",
    """
    WITH made AS (
        INSERT INTO eligibility_versions (coupon_name, kind, users)
        SELECT coupon_name, kind, 1 FROM campaigns, unnest(ARRAY['allow', 'deny']) AS kind WHERE coupon_name = '{0}'
        RETURNING kind, version
    ), loaded AS (
        INSERT INTO eligibility_lists (coupon_name, kind, version, user_id)
        SELECT '{0}', kind, version, unnest(CASE kind WHEN 'deny' THEN '{{ben}}' ELSE '{{ada,ben,dora}}' END::text[])
        FROM made
        RETURNING 1
    )
    UPDATE campaigns SET deny_version = (SELECT version FROM made WHERE kind = 'deny'),
        allow_version = (SELECT version FROM made WHERE kind = 'allow' AND '{0}' LIKE '%0')
    WHERE coupon_name = '{0}' AND (SELECT count(*) FROM loaded) > 0
    """,
    """
    UPDATE campaigns SET rules = jsonb_set(rules, '{{attributes,0,one_of}}', '["JP"]')
    WHERE coupon_name = '{0}' AND rules IS NOT NULL
    """,
    "UPDATE coupons SET ended_count = NULL WHERE name = '{0}'",
)


def _any_state(chance: random.Random) -> State:
    def some(most: int, out_of: Sequence[str] = _USERS) -> list[tuple[str, ClaimOptions]]:
        return [(chance.choice(out_of), _any_options(chance)) for _ in range(chance.randint(0, most))]

    batch = some(4) if chance.random() < 0.5 else [(each, _any_options(chance)) for each in chance.sample(_USERS, 3)]
    return State(
        Campaign(
            per_user_limit=chance.choice((1, 1, 2, 3)),
            claims_per_user=chance.choice((None, None, 1, 2)),
            rules=chance.choice((None, _RULES)),
            type=chance.choice((None, "spring")),
        ),
        chance.choice((3, 5, 9, 12)),
        chance.random() < 0.4,
        [each for each in _CHANGES if chance.random() < 0.06],
        some(3),
        [each for each in _CHANGES if chance.random() < 0.04],
        batch,
        some(2) if chance.random() < 0.3 else [],
    )


def _any_options(chance: random.Random) -> ClaimOptions:
    return ClaimOptions(
        hold_seconds=chance.choice((None, None, None, 60)),
        idempotency_key=once(f"k{chance.randint(0, 99)}") if chance.random() < 0.4 else None,
        attributes={"country": "KR" if chance.random() < 0.85 else "FR"},
    )


class Twin:
    """One of two coupons in the same state.

    Args:
        name: of the coupon. Callers are its own, too, because keys are not of a coupon.
    """

    def __init__(self, storage: Repositories, database_url: str, name: str) -> None:
        self._storage = storage
        self._url = database_url
        self.name = name

    async def make(self, state: State) -> None:
        await create_coupon(self._storage, self.name, state.amount, StrategyName.REDLOCK, state.campaign)
        if state.codes:
            self._run(
                "INSERT INTO codes (coupon_name, code) SELECT name, name || '-' || generate_series(1, amount)"
                " FROM coupons WHERE name = '{0}'",
                "INSERT INTO campaigns (coupon_name, has_codes, uses) VALUES ('{0}', true, 1)"
                " ON CONFLICT (coupon_name) DO UPDATE SET has_codes = true",
            )
        for each in state.before:
            await self._storage.admission.admit(self._attempts([each]))
        self._run(*state.changes)

    def change(self, state: State) -> None:
        self._run(*state.meanwhile)

    def _run(self, *statements: str) -> None:
        for each in statements:
            administrate(self._url, each.format(self.name))
        # Whatever changes terms or holds does that.
        administrate(self._url, UPDATE_PLAIN_UNTIL.replace("%(coupon_names)s", f"'{{{self.name}}}'"))

    def _attempts(self, made: Sequence[tuple[str, ClaimOptions]]) -> list[Attempt]:
        found = []
        for user_id, options in made:
            key = options.idempotency_key
            own = replace(options, idempotency_key=key and replace(key, caller=self.name))
            found.append(Attempt(str(uuid_utils.uuid7()), self.name, user_id, own))
        return found

    async def admit(self, state: State) -> list[list[Any]]:
        """What is told of each claim, without what differs between the twins: the ids and the moments."""
        handed = (
            handed_batch(str(uuid_utils.uuid7()), self.name, self._attempts(state.handed)) if state.handed else None
        )
        batches = [handed] if handed is not None else []
        own, decided = await path_of(self._storage).admit_handed(self._attempts(state.batch), batches)
        told = [list(map(self._told, own))]
        for batch, each in zip(batches, decided, strict=True):
            assert each is not None
            all_claimed = [
                ("Claimed", batch_user, None, None, "active", None) for batch_user in batch.user_ids.split("\n")
            ]
            told.append(all_claimed if isinstance(each, AllClaimed) else list(map(self._told, each)))
        return told

    def _told(self, outcome: Any) -> tuple[Any, ...]:
        claim = getattr(outcome, "claim", None)
        if claim is None:
            answer = getattr(outcome, "answer", None)
            return type(outcome).__name__, *(
                self._told(answer) if answer is not None else (getattr(outcome, "reasons", ""),)
            )
        lasts = claim.expires_at and round((claim.expires_at - claim.claimed_at).total_seconds())
        return type(outcome).__name__, claim.user_id, self._short(claim.code), claim.terms, claim.state.value, lasts

    def _short(self, text: str | None) -> str | None:
        return text and text.replace(self.name, "")

    def kept(self) -> list[Any]:
        """What is in the database."""
        found = administrate(
            self._url,
            f"""
            SELECT claim.user_id, claim.state, slot, held_until - claimed_at BETWEEN '59 s' AND '61 s',
                held_until IS NULL, replace(code.code, '{self.name}', ''), code.voided_at IS NULL
            FROM user_claims AS claim LEFT JOIN codes AS code
                ON code.coupon_name = claim.coupon_name AND code.claim_id = claim.id
            WHERE claim.coupon_name = '{self.name}' ORDER BY 1, 2, 3, 4, 6
            """,
        )
        found += administrate(
            self._url,
            "SELECT amount, remaining_amount, ended_count, plain_until < now() FROM coupons"
            f" WHERE name = '{self.name}'",
        )
        found += administrate(
            self._url,
            f"SELECT replace(code, '{self.name}', ''), claim_id IS NULL, voided_at IS NULL FROM codes"
            f" WHERE coupon_name = '{self.name}' ORDER BY 1",
        )
        for key, fingerprint, answer, request_id in administrate(
            self._url,
            "SELECT key, fingerprint, answer, request_id FROM idempotent_answers"
            f" WHERE caller = '{self.name}' ORDER BY key",
        ):
            assert isinstance(answer, dict)
            found.append((key, fingerprint, self._told(decode(answer)), request_id))
        return found


@pytest.mark.parametrize("seed", range(6))
async def test_any_batch_on_any_state_is_sold_as_the_full_path_decides_it(
    storage: Repositories, database_url: str, sales: list[int], seed: int
) -> None:
    chance = random.Random(seed)
    path = path_of(storage)
    for number in range(25):
        state = _any_state(chance)
        decided, sold = (Twin(storage, database_url, f"{kind}-{seed}-{number}") for kind in ("decided", "sold"))
        for twin in (decided, sold):
            await twin.make(state)
        path._selling.clear()
        decided.change(state)
        expected = await decided.admit(state)
        await learn_terms(path, sold.name)
        sold.change(state)
        assert await sold.admit(state) == expected, state
        assert sold.kept() == decided.kept(), state
    assert len(sales) > 5, "hardly anything was sold"


@asynccontextmanager
async def _holding_the_row(database_url: str) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    async with await psycopg.AsyncConnection.connect(database_url.replace("+psycopg", "")) as other:
        await other.execute("SELECT FROM coupons WHERE name = 'spring' FOR NO KEY UPDATE")
        yield other


_WAITS = """
SELECT pid FROM pg_stat_activity
WHERE wait_event_type = 'Lock' AND datname = current_database() AND query LIKE '%coupons%'
"""


async def test_terms_that_changed_while_a_sale_waited_for_the_row_are_those_that_count(
    storage: Repositories, database_url: str, sales: list[int]
) -> None:
    await create_coupon(storage, "spring", 5, StrategyName.REDLOCK, Campaign(rules=_RULES))
    korean = ClaimOptions(attributes={"country": "KR"})
    first, second, third = (replace(each, options=korean) for each in attempts("ada", "ben", "cleo"))
    assert kinds(list(await storage.admission.admit([first]))) == ["Claimed"]
    assert kinds(list(await storage.admission.admit([second]))) == ["Claimed"]
    assert sales == [1]
    async with _holding_the_row(database_url) as other:
        waiting = asyncio.create_task(storage.admission.admit([third]))
        await until(lambda: bool(administrate(database_url, _WAITS)), "the sale waits for the row")
        await other.execute("UPDATE campaigns SET rules = jsonb_set(rules, '{attributes,0,one_of}', '[\"JP\"]')")
    assert kinds(await waiting) == ["NotEligible"]
    assert sales == [1]
    assert await remaining(storage) == 3


async def test_a_key_that_another_coupon_uses_meanwhile_gets_one_unit(
    storage: Repositories, database_url: str, sales: list[int]
) -> None:
    """Two coupons are claimed under the same keys at once: their rows do not exclude each other."""
    for name in ("spring", "autumn"):
        await create_coupon(storage, name, 100, StrategyName.REDLOCK)
        await storage.admission.admit(
            [
                replace(each, options=ClaimOptions(idempotency_key=once(f"first-{name}")))
                for each in attempts("zoe", on=name)
            ]
        )
    for number in range(10):
        keys = [once(f"{number}-{place}") for place in range(5)]

        def claims(name: str, order: int, number: int = number, keys: list[IdempotencyKey] = keys) -> list[Attempt]:
            made = attempts(*(f"user-{number}-{place}" for place in range(5)), on=name)
            return [
                replace(each, options=ClaimOptions(idempotency_key=key)) for each, key in zip(made, keys, strict=True)
            ][::order]

        one, other = await asyncio.gather(
            storage.admission.admit(claims("spring", 1)), storage.admission.admit(claims("autumn", -1))
        )
        assert sorted((set(kinds(one)), set(kinds(other))), key=str) == [{"Claimed"}, {"Replayed"}]
    assert len(sales) >= 3
    assert await remaining(storage, "spring") + await remaining(storage, "autumn") == 198 - 50


async def test_codes_are_given_in_their_order_across_sales(
    storage: Repositories, database_url: str, sales: list[int]
) -> None:
    await create_coupon(storage, "spring", 0, StrategyName.REDLOCK)
    codes = [f"C-{number}" for number in range(9, 0, -1)]
    administrate(
        database_url,
        f"INSERT INTO codes (coupon_name, code) SELECT 'spring', unnest(ARRAY{codes});"
        "INSERT INTO campaigns (coupon_name, has_codes) VALUES ('spring', true);"
        "UPDATE coupons SET amount = 9, remaining_amount = 9, plain_until = 'epoch'",
    )
    given = []
    for users in (("ada",), ("ben", "cleo"), ("dora", "emil", "fay"), ("gus", "hal", "ida")):
        for outcome in await storage.admission.admit(attempts(*users)):
            assert isinstance(outcome, Claimed)
            given.append(outcome.claim.code)
    assert given == codes
    assert sales == [2, 3, 3]


async def test_codes_that_become_free_behind_the_last_that_was_sold_are_the_next(
    storage: Repositories, database_url: str, sales: list[int]
) -> None:
    await create_coupon(storage, "spring", 0, StrategyName.REDLOCK)
    administrate(
        database_url,
        "INSERT INTO codes (coupon_name, code) SELECT 'spring', 'C-' || generate_series(0, 9);"
        "INSERT INTO campaigns (coupon_name, has_codes) VALUES ('spring', true);"
        "UPDATE coupons SET amount = 9, remaining_amount = 9, plain_until = 'epoch'",
    )
    [(early,)] = administrate(database_url, "DELETE FROM codes WHERE code = 'C-0' RETURNING place")

    async def given_to(user: str, options: ClaimOptions | None = None) -> str | None:
        [outcome] = await storage.admission.admit([replace(each, options=options) for each in attempts(user)])
        assert isinstance(outcome, Claimed)
        return outcome.claim.code

    await given_to("ada", ClaimOptions(hold_seconds=60))
    assert [await given_to(user) for user in ("ben", "cleo")] == ["C-2", "C-3"]
    sold = path_of(storage)._selling["spring"].sold_codes
    [(place,)] = administrate(database_url, "SELECT place FROM codes WHERE code = 'C-3'")
    assert (sold.up_to, sold.while_ended) == (str(place), "0")
    # Nobody has seen the code of a hold.
    [(held,)] = administrate(database_url, "SELECT id::text FROM user_claims WHERE user_id = 'ada'")
    await storage.claims.cancel(str(held), AuditEntry("ada", "claim.cancel", "claim", str(held)))
    assert [await given_to(user) for user in ("dora", "emil", "fay")] == ["C-1", "C-4", "C-5"]
    # A long upload draws its places before others that are committed before it.
    administrate(
        database_url,
        f"INSERT INTO codes (coupon_name, code, place) OVERRIDING SYSTEM VALUE VALUES ('spring', 'C-0', {early});"
        "UPDATE coupons SET amount = amount + 1, remaining_amount = remaining_amount + 1;"
        "UPDATE campaigns SET has_codes = true",
    )
    assert [await given_to(user) for user in ("gus", "hal")] == ["C-0", "C-6"]
    assert sales == [1] * 6
    assert await remaining(storage) == 3


async def test_a_repetition_after_a_sale_gets_the_answer_that_the_sale_stored(
    storage: Repositories, sales: list[int]
) -> None:
    await create_coupon(storage, "spring", 5, StrategyName.REDLOCK, Campaign(per_user_limit=2))
    for user in ("ada", "ben"):
        [made] = attempts(user)
        keyed = replace(made, options=ClaimOptions(hold_seconds=60, idempotency_key=once(user)))
        [outcome] = await storage.admission.admit([keyed])
    assert sales == [1]
    [again] = await storage.admission.admit([replace(keyed, claim_id=str(uuid_utils.uuid7()))])
    assert again.answer == outcome  # type: ignore[union-attr]
    assert again.request_id == "request"  # type: ignore[union-attr]
    assert await remaining(storage) == 3


async def test_who_is_not_eligible_is_told_so_and_the_others_are_sold_to(
    storage: Repositories, sales: list[int]
) -> None:
    await create_coupon(storage, "spring", 9, StrategyName.REDLOCK, Campaign(rules=_RULES))

    def asking(*users: str, country: str = "KR") -> list[Attempt]:
        return [replace(each, options=ClaimOptions(attributes={"country": country})) for each in attempts(*users)]

    await storage.admission.admit(asking("ada"))
    french = asking("fay", "gus", country="FR")
    decisions = await storage.admission.admit([french[0], *asking("ben", "cleo"), french[1]])
    assert kinds(decisions) == ["NotEligible", "Claimed", "Claimed", "NotEligible"]
    assert sales == [4]
    # Who has a claim is told so, whatever is stated now.
    assert kinds(await storage.admission.admit([*asking("dora"), *asking("ben", country="FR")])) == [
        "Claimed",
        "AlreadyClaimed",
    ]
    await storage.admission.admit(asking("emil"))
    twice = [*asking("hal", country="FR"), *asking("hal"), *asking("hal", country="FR")]
    assert kinds(await storage.admission.admit(twice)) == ["NotEligible", "Claimed", "AlreadyClaimed"]
    assert await remaining(storage) == 3


async def test_coupons_with_a_deny_list_are_sold_to_all_others(
    storage: Repositories, database_url: str, sales: list[int]
) -> None:
    await create_coupon(storage, "spring", 9, StrategyName.REDLOCK, Campaign(type="list"))
    deny = next(each for each in _CHANGES if "eligibility_lists" in each)
    administrate(database_url, deny.format("spring"))
    administrate(database_url, "UPDATE coupons SET plain_until = 'epoch'")
    for users, told in (("ada", "Claimed"), ("cleo", "Claimed"), ("ben", "NotEligible"), ("dora", "Claimed")):
        assert kinds(await storage.admission.admit(attempts(users))) == [told]
    assert sales == [1]
    assert await remaining(storage) == 6


async def test_a_user_gets_several_units_of_one_batch(
    storage: Repositories, database_url: str, sales: list[int]
) -> None:
    await create_coupon(storage, "spring", 9, StrategyName.REDLOCK, Campaign(per_user_limit=3))
    await storage.admission.admit(attempts("ada", "ben"))
    administrate(database_url, "UPDATE user_claims SET slot = 2 WHERE user_id = 'ada'")
    assert kinds(await storage.admission.admit(attempts("ada", "cleo", "ada", "cleo"))) == ["Claimed"] * 4
    assert sales == [4]
    slots = "SELECT user_id, array_agg(slot ORDER BY slot) FROM user_claims GROUP BY user_id ORDER BY user_id"
    assert administrate(database_url, slots) == [("ada", [1, 2, 3]), ("ben", [1]), ("cleo", [1, 2])]
    assert kinds(await storage.admission.admit(attempts("cleo", "cleo"))) == ["Claimed", "AlreadyClaimed"]
    assert sales == [4]


async def test_a_user_with_a_unit_in_a_higher_slot_alone_gets_no_second(
    storage: Repositories, database_url: str
) -> None:
    await create_coupon(storage, "spring", 5, StrategyName.REDLOCK, Campaign(per_user_limit=2))
    await storage.admission.admit(attempts("ada"))
    administrate(
        database_url,
        "UPDATE user_claims SET slot = 2; UPDATE campaigns SET per_user_limit = 1, had_higher_limit = true",
    )
    await learn_terms(path_of(storage), "spring")
    [outcome] = await storage.admission.admit(attempts("ada"))
    assert isinstance(outcome, AlreadyClaimed)


async def test_coupons_whose_terms_need_other_tables_are_not_sold(storage: Repositories) -> None:
    await create_coupon(
        storage, "spring", 5, StrategyName.REDLOCK, Campaign(rules=EligibilityRules(holds_not=("autumn",)))
    )
    for users in (("ada",), ("ben",)):
        assert kinds(await storage.admission.admit(attempts(*users))) == ["Claimed"]
    assert path_of(storage)._selling == {}


@pytest.mark.parametrize("rows", [0, 20_000])
def test_a_sale_finds_every_row_by_an_index_whatever_the_tables_held_when_it_was_planned(
    database_url: str, rows: int
) -> None:
    statement = selling(Shape(codes=True, slots=True, holds=True, keys=True, fence=True, refusals=True, lists=True))
    options = "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off"
    with psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True, options=options) as connection:
        connection.execute("INSERT INTO coupons (name, amount, remaining_amount) VALUES ('spring', 100000, 80000)")
        connection.execute("INSERT INTO campaigns (coupon_name, has_codes) VALUES ('spring', true)")
        connection.execute(
            "INSERT INTO codes (coupon_name, code) SELECT 'spring', 'C-' || i FROM generate_series(1, %s) AS i", [rows]
        )
        connection.execute(
            "INSERT INTO user_claims SELECT gen_random_uuid(), 'spring', 'u' || i, 'active', now() "
            "FROM generate_series(1, %s) AS i",
            [rows],
        )
        connection.execute("ANALYZE" if rows else "SELECT 1")
        names: dict[str, int] = {}
        numbered = psycopg_numbered(statement, names)
        connection.execute(f"PREPARE sale AS {numbered}".encode())
        nulls = ", ".join(["NULL"] * len(names))
        plan = "\n".join(row[0] for row in connection.execute(f"EXPLAIN EXECUTE sale ({nulls})".encode()))
    assert "Seq Scan" not in plan
    assert "Index Scan using user_claims_one_active_per_slot" in plan
    assert "Index Scan using codes_free_idx" in plan
    searched = plan.split("Index Scan using codes_free_idx on codes")[1].split("Index Cond: ")[1].splitlines()[0]
    assert "coupon_name = " in searched
    assert "place > " in searched
    given = plan.split("Tid Scan on codes")[1].split("TID Cond: ")[1].splitlines()[0]
    assert "ctid = ANY" in given
    assert "using eligibility_lists_pkey" in plan
    assert "using codes_expiry_idx" in plan
    assert "using user_claims_held_idx" in plan


def psycopg_numbered(statement: str, names: dict[str, int]) -> str:
    """The statement with its parameters by number, as PREPARE wants them."""
    import re

    return re.sub(r"%\((\w+)\)s", lambda name: f"${names.setdefault(name[1], len(names) + 1)}", statement)
