"""Who gets a turn when more is asked than one turn begins."""

import asyncio

from claimsvc.http.server.fair_queue import FairQueue


async def arrive(turnstile: FairQueue, address: str, begun: list[str]) -> None:
    if not turnstile.is_free(address):
        await turnstile.turn(address)
    begun.append(address)


async def test_a_client_with_few_requests_is_not_behind_all_those_of_one_with_many() -> None:
    turnstile, begun = FairQueue(), list[str]()
    await arrive(turnstile, "few", begun)
    asking = [asyncio.ensure_future(arrive(turnstile, "many", begun)) for _ in range(300)]
    asking += [asyncio.ensure_future(arrive(turnstile, "few", begun)) for _ in range(3)]
    await asyncio.gather(*asking)
    assert begun.count("many") == 300
    assert max(place for place, address in enumerate(begun) if address == "few") < 30


async def test_a_client_that_is_alone_is_never_held_up() -> None:
    turnstile = FairQueue()
    await asyncio.sleep(0.6)
    assert turnstile.is_free("alone")
    await asyncio.sleep(0.6)
    assert all(turnstile.is_free("alone") for _ in range(300))


async def test_whoever_stops_waiting_holds_nobody_up() -> None:
    turnstile, begun = FairQueue(), list[str]()
    for address in ("a", "b"):
        await arrive(turnstile, address, begun)
    asking = [asyncio.ensure_future(arrive(turnstile, address, begun)) for address in "ab" * 50]
    await asyncio.sleep(0)
    for each in asking[::3]:
        each.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    assert sum(not each.cancelled() for each in asking) == len(begun) - 2
    assert len(begun) > 60


async def begun_by(asked: dict[str, int]) -> list[str]:
    """Who began, in this order, when all of these ask at once."""
    turnstile, begun = FairQueue(), list[str]()
    for address in asked:
        await arrive(turnstile, address, begun)
    begun.clear()
    await asyncio.gather(*(arrive(turnstile, address, begun) for address, times in asked.items() for _ in range(times)))
    return begun


async def test_whoever_crowds_all_others_out_gets_one_of_each_turn() -> None:
    begun = await begun_by({"many": 600, "few": 14, "one": 1})
    until_others_are_served = begun[: max(begun.index("one"), len(begun) - 1 - begun[::-1].index("few")) + 1]
    assert until_others_are_served.count("many") <= 10
    assert begun.count("many") == 600


async def test_two_that_share_the_load_badly_are_served_alike() -> None:
    begun = await begun_by({"more": 300, "less": 60})
    assert abs(begun[:100].count("more") - begun[:100].count("less")) <= 10
