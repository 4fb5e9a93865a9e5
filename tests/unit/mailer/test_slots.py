from __future__ import annotations

import asyncio

from services.mailer.sending import Desk, Slots


async def test_one_partition_alone_takes_every_connection() -> None:
    slots = Slots(4)
    assert slots.take(Desk()) == 4


async def test_who_has_waited_longest_is_called_when_half_of_the_connections_are_free() -> None:
    slots, first, second, third = Slots(4), Desk(), Desk(), Desk()
    slots.take(first)
    assert (slots.take(second), slots.take(third)) == (0, 0)
    slots.give_back(2)
    assert second.stir.is_set()
    assert not third.stir.is_set()
    assert slots.take(third) == 0
    assert slots.take(second) == 2


async def test_a_single_connection_is_not_kept_back_for_long() -> None:
    slots, first, second = Slots(8), Desk(), Desk()
    slots.take(first)
    slots.take(second)
    slots.give_back(1)
    assert slots.take(second) == 0
    async with asyncio.timeout(5):
        await second.stir.wait()
    assert slots.take(second) == 1


async def test_a_partition_that_is_let_go_does_not_stand_in_the_way() -> None:
    slots, first, second, third = Slots(2), Desk(), Desk(), Desk()
    slots.take(first)
    slots.take(second)
    slots.take(third)
    slots.give_back(2)
    slots.withdraw(second)
    assert third.stir.is_set()
    assert slots.take(third) == 2


async def test_what_was_taken_in_vain_goes_to_the_next() -> None:
    slots, first, second = Slots(2), Desk(), Desk()
    taken = slots.take(first)
    slots.take(second)
    slots.give_back(taken)
    assert second.stir.is_set()
