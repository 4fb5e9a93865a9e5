from __future__ import annotations

import asyncio

from services.mailer.desk import Desk
from services.mailer.slots import Slots


def desk() -> Desk:
    return Desk(backlog=True)


async def stirred(who: Desk) -> None:
    async with asyncio.timeout(5):
        await who.stir.wait()


async def test_one_partition_alone_takes_every_connection_again_and_again() -> None:
    slots, only = Slots(4), desk()
    assert slots.take(only) == 4
    slots.give_back(4)
    assert slots.take(only) == 4


async def test_who_has_waited_longest_is_called_when_half_of_the_connections_are_free() -> None:
    slots, first, second, third = Slots(4), desk(), desk(), desk()
    slots.take(first)
    slots.withdraw(first)
    assert (slots.take(second), slots.take(third)) == (0, 0)
    slots.give_back(2)
    assert second.stir.is_set()
    assert not third.stir.is_set()
    assert slots.take(third) == 0
    assert slots.take(second) == 2


async def test_who_took_them_takes_them_again_for_a_while_and_then_the_next_one_may() -> None:
    slots, first, second = Slots(4), desk(), desk()
    slots.take(first)
    assert slots.take(second) == 0
    slots.give_back(4)
    assert slots.take(first) == 4
    slots.give_back(4)
    await stirred(second)
    assert slots.take(second) == 4


async def test_who_has_nothing_more_to_send_lets_the_next_one_at_once() -> None:
    slots, first, second = Slots(4), desk(), desk()
    slots.take(first)
    slots.take(second)
    slots.give_back(4)
    assert not second.stir.is_set()
    slots.withdraw(first)
    assert second.stir.is_set()
    assert slots.take(second) == 4


async def test_a_single_connection_is_not_kept_back_for_long() -> None:
    slots, first, second = Slots(8), desk(), desk()
    slots.take(first)
    slots.withdraw(first)
    slots.take(second)
    slots.give_back(1)
    assert slots.take(second) == 0
    await stirred(second)
    assert slots.take(second) == 1


async def test_a_partition_that_is_let_go_does_not_stand_in_the_way() -> None:
    slots, first, second, third = Slots(2), desk(), desk(), desk()
    slots.take(first)
    slots.withdraw(first)
    slots.take(second)
    slots.take(third)
    slots.give_back(2)
    slots.withdraw(second)
    assert third.stir.is_set()
    assert slots.take(third) == 2


async def test_a_partition_with_a_mail_or_two_goes_before_those_with_a_backlog() -> None:
    slots, first, second, quick = Slots(4), desk(), desk(), Desk()
    slots.take(first)
    slots.take(second)
    assert slots.take(quick) == 0
    slots.give_back(1)
    assert quick.stir.is_set()
    assert slots.take(quick) == 1
    slots.withdraw(quick)
    slots.give_back(4)
    assert slots.take(first) == 4


async def test_more_is_in_hand_where_mails_go_out_soon_and_no_more_than_connections_where_they_do_not() -> None:
    slots, only = Slots(4), desk()
    for _ in range(100):
        slots.paced(0.01)
    assert slots.take(only) == 32
    slots.give_back(32)
    for _ in range(3):
        slots.paced(3.0)
    assert slots.take(only) == 4


async def test_nothing_is_taken_while_more_is_in_hand_than_a_server_that_became_slow_takes() -> None:
    slots, only = Slots(4), desk()
    for _ in range(100):
        slots.paced(0.01)
    slots.take(only)
    for _ in range(3):
        slots.paced(3.0)
    slots.give_back(28)
    assert slots.take(only) == 0
    slots.give_back(2)
    assert slots.take(only) == 2
