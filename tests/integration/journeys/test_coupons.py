"""Coupons on a real database: partitions claim codes from shared pools, and none is ever issued twice."""

from __future__ import annotations

import asyncio
import itertools
from datetime import timedelta
from itertools import cycle

import msgspec
from patience import until
from test_journeys_service import FILES, MINUTE, NOON, Town, town  # noqa: F401

from services.journeys import claims, store
from shared.contracts.customers import CustomerUpdated
from shared.contracts.messages import MessageRequested
from shared.database.engine import Database
from shared.language import load
from shared.language.playbook import CouponPool, Playbook

JOURNEY = """
journey: abandoned-cart
trigger: {event: Thanked}
again: always
defaults: {topic: cart-reminders}
steps:
  - id: code
    coupon: ten
  - email: reminder
    with: {orders: steps.code.code}
"""


def made(limit: int | None = None, length: int = 8) -> CouponPool:
    return CouponPool("ten", "Ten", "TEN-", length, limit, None)


def listed(*codes: str) -> CouponPool:
    return CouponPool("ten", "Ten", "", 10, None, None, codes)


def playbook(pool: str, journey: str = JOURNEY) -> Playbook:
    files = {
        **FILES,
        "journeys/abandoned-cart.yaml": journey,
        "coupons/ten.yaml": pool,
        "messages/last-call/message.yaml": "title: Last call\n",
    }
    return load({path: text.encode() for path, text in files.items()})


async def claim(database: Database, partition: int, pool: CouponPool, wanted: int = 1) -> int:
    async with database.transaction() as connection:
        return await claims.claim(connection, partition, pool, wanted)


async def held(database: Database, partition: int) -> list[str]:
    async with database.connect() as connection:
        return (await store.codes_to_issue(connection, partition)).get("ten", [])


async def test_partitions_that_claim_at_once_share_a_limit_without_a_code_too_many(database: Database) -> None:
    got = await asyncio.gather(*(claim(database, partition, made(limit=10), 3) for partition in range(6)))
    codes = [code for partition in range(6) for code in await held(database, partition)]
    assert sum(got) == len(codes) == len(set(codes)) == 10


async def test_a_list_is_given_out_in_its_order_and_an_edit_gives_nothing_twice(database: Database) -> None:
    assert await claim(database, 0, listed("A", "B", "C"), 2) == 2
    assert await claim(database, 1, listed("A", "B", "C"), 2) == 1
    assert await claim(database, 1, listed("D", "C", "B", "A"), 2) == 1
    assert (await held(database, 0), await held(database, 1)) == (["A", "B"], ["C", "D"])


async def test_a_small_pool_is_not_hoarded(database: Database) -> None:
    assert await claim(database, 0, made(limit=100)) == 3
    assert await claim(database, 1, made()) == claims.BLOCK


async def test_a_code_that_was_drawn_before_is_drawn_anew(database: Database) -> None:
    drawn = cycle(["TEN-A", "TEN-A", "TEN-B"])
    async with database.transaction() as connection:
        assert await claims.claim(connection, 0, made(limit=2), 2, lambda pool: next(drawn)) == 2
    assert sorted(await held(database, 0)) == ["TEN-A", "TEN-B"]


async def test_a_pool_of_which_every_code_has_been_drawn_ends(database: Database) -> None:
    async with database.transaction() as connection:
        assert await claims.claim(connection, 0, made(limit=5), 5, lambda pool: "TEN-A") == 1


async def asked(town: Town, count: int) -> list[MessageRequested]:  # noqa: F811
    """Wait for so many messages; time goes on meanwhile, since who waits for a code is woken by it."""
    seconds = itertools.count(1)

    async def enough() -> list[MessageRequested] | None:
        await town.time_is(NOON + timedelta(seconds=next(seconds)))
        found = [message for message in await town.told() if isinstance(message, MessageRequested)]
        return found if len(found) >= count else None

    found: list[MessageRequested] = await until(enough)
    assert len(found) == count
    return found


def test_codes_hold_no_sign_that_is_mistaken_for_another() -> None:
    drawn = {claims.drawn(made(length=40)) for _ in range(200)}
    assert len(drawn) == 200
    assert not set("".join(code.removeprefix("TEN-") for code in drawn)) & set("0O1IL2Z5S8BAEU")


async def test_each_customer_gets_a_code_and_those_after_the_last_one_get_none(town: Town) -> None:  # noqa: F811
    await town.apply(playbook("codes: [A, B, C, D, E]"), NOON)
    for number in range(7):
        key = f"customer-{number}"
        await town.tell(key, town.did(key, "Thanked", NOON, {}))
    requests = await asked(town, 7)
    codes = sorted(str(request.data["with"]["orders"]) for request in requests)
    assert codes == ["A", "B", "C", "D", "E", "None", "None"]
    assert {request.due for request in requests} == {NOON}
    issued = await town.fetch("SELECT code, customer, step FROM journeys.coupons WHERE issued_at = '2026-03-02T12:00Z'")
    given = {(request.data["with"]["orders"], request.customer, "code") for request in requests}
    assert set(issued) == {one for one in given if one[0] is not None}
    await town.apply(playbook("codes: [A, B, C, D, E, F]"), NOON)
    await town.tell("late", town.did("late", "Thanked", NOON, {}))
    late = [request for request in await asked(town, 8) if request.customer == "late"]
    assert [request.data["with"]["orders"] for request in late] == ["F"]


async def test_who_finds_no_code_claimed_goes_on_as_they_were_at_the_step(town: Town) -> None:  # noqa: F811
    await town.service.stop()
    named = JOURNEY.replace("orders: steps.code.code", "orders: traits.name, code: steps.code.code")
    await town.apply(playbook("codes: [A]", named), NOON)
    thanked = town.did("ann", "Thanked", NOON, {})
    renamed = town.did("ann", "Account Updated", NOON + MINUTE, {})
    await town.tell("ann", *(called(one, name) for one, name in ((thanked, "Ann"), (renamed, "Anna"))))
    town.service = town.build()
    await town.service.start()
    [request] = await asked(town, 1)
    assert request.data["with"] == {"orders": "Ann", "code": "A"}
    assert request.data["traits"] == {"name": "Ann"}


def called(record: CustomerUpdated, name: str) -> CustomerUpdated:
    return msgspec.structs.replace(record, customer=msgspec.structs.replace(record.customer, traits={"name": name}))
