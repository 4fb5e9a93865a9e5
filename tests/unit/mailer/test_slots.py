from __future__ import annotations

import asyncio

from services.mailer.sending import Desk
from services.mailer.slots import Slots


async def stirred(desk: Desk) -> None:
    async with asyncio.timeout(5):
        await desk.stir.wait()


async def test_one_partition_alone_takes_every_connection_again_and_again() -> None:
    slots, only = Slots(4), Desk()
    assert slots.take(only) == 4
    slots.give_back(4)
    assert slots.take(only) == 4


async def test_who_has_waited_longest_is_called_when_half_of_the_connections_are_free() -> None:
    slots, first, second, third = Slots(4), Desk(), Desk(), Desk()
    slots.take(first)
    slots.withdraw(first)
    assert (slots.take(second), slots.take(third)) == (0, 0)
    slots.give_back(2)
    assert second.stir.is_set()
    assert not third.stir.is_set()
    assert slots.take(third) == 0
    assert slots.take(second) == 2


async def test_who_took_them_takes_them_again_for_a_while_and_then_the_next_one_may() -> None:
    slots, first, second = Slots(4), Desk(), Desk()
    slots.take(first)
    assert slots.take(second) == 0
    slots.give_back(4)
    assert slots.take(first) == 4
    slots.give_back(4)
    await stirred(second)
    assert slots.take(second) == 4


async def test_who_has_nothing_more_to_send_lets_the_next_one_at_once() -> None:
    slots, first, second = Slots(4), Desk(), Desk()
    slots.take(first)
    slots.take(second)
    slots.give_back(4)
    assert not second.stir.is_set()
    slots.withdraw(first)
    assert second.stir.is_set()
    assert slots.take(second) == 4


async def test_a_single_connection_is_not_kept_back_for_long() -> None:
    slots, first, second = Slots(8), Desk(), Desk()
    slots.take(first)
    slots.withdraw(first)
    slots.take(second)
    slots.give_back(1)
    assert slots.take(second) == 0
    await stirred(second)
    assert slots.take(second) == 1


async def test_a_partition_that_is_let_go_does_not_stand_in_the_way() -> None:
    slots, first, second, third = Slots(2), Desk(), Desk(), Desk()
    slots.take(first)
    slots.withdraw(first)
    slots.take(second)
    slots.take(third)
    slots.give_back(2)
    slots.withdraw(second)
    assert third.stir.is_set()
    assert slots.take(third) == 2
