"""Idempotency-Key on what is sent by POST; `tests/http/test_idempotency.py` has claiming."""

from claimsvc.http.routes import ROUTES
from tests.http.asking import claim, create
from tests.http.memory_services import Service
from tests.support.admin import ADMIN


def test_whatever_is_sent_by_post_can_have_a_key() -> None:
    assert [route.path for route in ROUTES if route.method == "POST" and not route.keyed] == []


async def test_a_coupon_that_is_offered_again_under_its_key_is_the_one_that_was_made(service: Service) -> None:
    headers = ADMIN | {"Idempotency-Key": '"offer-1"'}
    made = await create(service, {"name": "winter", "amount": 5}, headers | {"X-Request-ID": "first"})
    again = await create(service, {"amount": 5, "name": "winter"}, headers)
    assert (made[0], "Idempotency-Replayed" in made[2]) == (201, False)
    assert again[:2] == made[:2]
    assert (again[2]["Idempotency-Replayed"], again[2]["Location"]) == ("true", made[2]["Location"])
    status, problem, _ = await create(service, {"name": "winter", "amount": 6}, headers)
    assert (status, problem["type"]) == (422, "/problems/key-reused")


async def test_a_refusal_is_told_again_with_the_request_that_it_answered(service: Service) -> None:
    headers = ADMIN | {"Idempotency-Key": "offer-2"}
    _, first, _ = await create(service, {"name": "plenty", "amount": 5}, headers | {"X-Request-ID": "first"})
    status, again, _ = await create(service, {"name": "plenty", "amount": 5}, headers)
    assert (status, again) == (409, first)
    assert again["request_id"] == "first"


async def test_closing_and_confirming_are_told_again(service: Service) -> None:
    _, made, _ = await claim(service)
    for path in ("/api/coupons/plenty/archive", f"/api/claims/{made['id']}/confirm"):
        answers = []
        for _ in range(2):
            headers = ADMIN | {"Idempotency-Key": path.replace("/", ".")}
            async with service.client.post(service.url + path, headers=headers) as answer:
                answers.append((answer.status, await answer.json(), answer.headers.get("Idempotency-Replayed")))
        assert answers == [(200, answers[0][1], None), (200, answers[0][1], "true")]
