"""Keys with scopes in PostgreSQL: who is found by one, for how long, and what is kept of it."""

import hashlib
from collections.abc import AsyncIterator

import pytest

from claimsvc.domain import ApiKey, Scope
from claimsvc.errors import UnavailableError
from claimsvc.postgres import Repositories
from claimsvc.postgres.database import Database
from claimsvc.postgres.keys import PostgresKeys
from claimsvc.postgres.pool import open_pool
from tests.support.databases import administrate
from tests.support.observed import Observed
from tests.support.storage import LIMITS, entries_about, open_storage
from tests.support.waiting import until

SCOPES = frozenset({Scope.CLAIMS_READ, Scope.COUPONS_WRITE})
DIGEST = hashlib.sha256(b"a key").digest()


@pytest.fixture
async def elsewhere(database_url: str) -> AsyncIterator[PostgresKeys]:
    """What another instance knows, which looks again each time."""
    async with open_pool(database_url, LIMITS, Observed()) as pool:
        yield PostgresKeys(Database(pool, 3.0), fresh_seconds=0.0)


async def make(keys: PostgresKeys, digest: bytes = DIGEST, *, expires_seconds: float | None = None) -> ApiKey:
    return await keys.create(
        digest, label="the shop", scopes=SCOPES, expires_seconds=expires_seconds, actor="os-user:ann@here"
    )


async def test_a_key_is_found_by_its_digest_and_by_no_other(storage: Repositories) -> None:
    made = await make(storage.keys)
    assert await storage.keys.of_digest(DIGEST) == made
    assert (made.label, made.scopes, made.expires_at, made.revoked_at) == ("the shop", SCOPES, None, None)
    assert await storage.keys.of_digest(hashlib.sha256(b"another").digest()) is None


async def test_several_keys_are_good_at_once_and_revoking_one_leaves_the_others(storage: Repositories) -> None:
    first = await make(storage.keys)
    second = await make(storage.keys, hashlib.sha256(b"second").digest())
    assert await storage.keys.revoke(first.id, actor="os-user:ann@here")
    assert [(key.id, key.revoked_at is None) for key in await storage.keys.all()] == [
        (first.id, False),
        (second.id, True),
    ]
    assert await storage.keys.of_digest(DIGEST) is None
    assert await storage.keys.of_digest(hashlib.sha256(b"second").digest()) == second


async def test_what_is_revoked_once_cannot_be_revoked_again(storage: Repositories) -> None:
    made = await make(storage.keys)
    assert [await storage.keys.revoke(each, actor="x") for each in (made.id, made.id, "none")] == [True, False, False]


@pytest.mark.slow
async def test_an_instance_that_has_just_seen_a_key_forgets_it_soon_after_it_was_revoked(
    storage: Repositories, elsewhere: PostgresKeys
) -> None:
    made = await make(storage.keys)
    assert await elsewhere.of_digest(DIGEST) == made
    # This one has a memory of 5 s, and has seen the key: the one without is right at once, this one soon.
    assert await storage.keys.of_digest(DIGEST) == made
    assert await elsewhere.revoke(made.id, actor="os-user:ann@here")
    assert await elsewhere.of_digest(DIGEST) is None

    async def is_forgotten() -> bool:
        return await storage.keys.of_digest(DIGEST) is None

    await until(is_forgotten, "the revoked key is forgotten", within_seconds=10)


async def test_a_key_ends_when_it_expires_also_where_it_was_just_seen(storage: Repositories) -> None:
    made = await make(storage.keys, expires_seconds=0.5)
    assert made.expires_at is not None
    assert await storage.keys.of_digest(DIGEST) == made

    async def is_over() -> bool:
        return await storage.keys.of_digest(DIGEST) is None

    # Less than what is believed without looking again.
    await until(is_over, "the key has expired", within_seconds=3)


async def test_making_and_revoking_are_audited_and_the_digest_is_not_told(
    storage: Repositories, database_url: str
) -> None:
    made = await make(storage.keys)
    await storage.keys.revoke(made.id, actor="os-user:bob@here")
    await storage.keys.revoke(made.id, actor="os-user:eve@here")
    ended, begun = await entries_about(storage, "key", made.id, limit=9)
    assert (begun.actor, begun.action) == ("os-user:ann@here", "key.create")
    assert begun.details == {"label": "the shop", "scopes": ["claims:read", "coupons:write"], "expires_at": None}
    assert (ended.actor, ended.action, ended.details) == ("os-user:bob@here", "key.revoke", {"label": "the shop"})


async def test_a_scope_of_a_later_version_gives_no_right_here(storage: Repositories, database_url: str) -> None:
    await make(storage.keys)
    administrate(database_url, "UPDATE api_keys SET scopes = ARRAY['coupons:fly', 'claims:read']")
    found = await storage.keys.of_digest(DIGEST)
    assert found is not None
    assert found.scopes == {Scope.CLAIMS_READ}


async def test_one_digest_is_one_key(storage: Repositories) -> None:
    """Two rows would let one that is revoked live on as the other."""
    await make(storage.keys)
    with pytest.raises(UnavailableError) as refused:
        await make(storage.keys)
    assert "api_keys_digest_idx" in str(refused.value.__cause__)
    assert len(await storage.keys.all()) == 1


async def test_made_up_keys_push_each_other_out_of_what_is_remembered(database_url: str) -> None:
    async with open_storage(database_url) as (storage, _):
        await make(storage.keys)
        for number in range(1_100):
            assert await storage.keys.of_digest(hashlib.sha256(str(number).encode()).digest()) is None
        assert len(storage.keys._cache) <= 1_000
        assert await storage.keys.of_digest(DIGEST) is not None
