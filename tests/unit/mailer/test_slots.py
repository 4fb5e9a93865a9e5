from __future__ import annotations

import asyncio

from patience import PATIENCE

from services.mailer.desk import Desk
from services.mailer.slots import Slots


def desk() -> Desk:
    return Desk(backlog=True)


async def stirred(who: Desk) -> None:
    async with asyncio.timeout(PATIENCE):
        await who.stir.wait()


async def test_what_is_taken_holds_its_slots_until_it_is_recorded() -> None:
    slots, only = Slots(4), desk()
    assert slots.offered(only)
    assert slots.take(0) == 4
    assert not slots.offered(only)
    assert slots.take(0) == 0
    slots.give_back(4)
    assert only.stir.is_set()
    assert slots.offered(only)


async def test_a_transaction_takes_again_what_it_records() -> None:
    slots = Slots(4)
    slots.take(0)
    assert slots.take(3) == 3
    slots.give_back(3)  # three are recorded
    assert slots.take(0) == 0


async def test_one_slot_of_what_is_recorded_is_left_to_each_who_waits_with_nothing_in_hand() -> None:
    slots, first, second = Slots(4), desk(), desk()
    slots.take(0)
    slots.offered(first)
    slots.offered(second)
    assert slots.take(3, [first]) == 2
    slots.give_back(3)
    assert slots.take(3, [first, second]) == 4  # the one that was left is free


async def test_a_backlog_is_called_when_half_of_the_slots_are_free() -> None:
    slots, first, second = Slots(4), desk(), desk()
    slots.take(0)
    assert not slots.offered(first)
    assert not slots.offered(second)
    slots.give_back(1)
    assert not first.stir.is_set()
    slots.give_back(1)
    assert first.stir.is_set()
    assert second.stir.is_set()


async def test_it_is_worth_recording_what_would_free_half_of_the_slots_for_somebody_who_waits() -> None:
    slots, first = Slots(4), desk()
    slots.take(0)
    assert not slots.wanted(4)
    slots.offered(first)
    assert not slots.wanted(1)
    assert slots.wanted(2)


async def test_a_single_slot_is_not_kept_back_for_long() -> None:
    slots, first = Slots(8), desk()
    slots.take(0)
    assert not slots.offered(first)
    slots.give_back(1)
    await stirred(first)
    assert slots.offered(first)
    assert slots.take(0) == 1


async def test_a_partition_with_a_mail_or_two_waits_for_no_more_than_a_slot() -> None:
    slots, first, quick = Slots(4), desk(), Desk()
    slots.take(0)
    assert not slots.offered(first)
    assert not slots.offered(quick)
    slots.give_back(1)
    assert quick.stir.is_set()
    assert slots.offered(quick)


async def test_who_has_nothing_more_to_send_is_not_called() -> None:
    slots, first = Slots(2), desk()
    slots.take(0)
    slots.offered(first)
    slots.withdraw(first)
    slots.give_back(2)
    assert not first.stir.is_set()


async def test_more_is_in_hand_where_mails_go_out_soon_and_no_more_than_connections_where_they_do_not() -> None:
    slots = Slots(4)
    for _ in range(100):
        slots.paced(0.01)
    assert slots.take(0) == 32
    slots.give_back(32)
    for _ in range(3):
        slots.paced(3.0)
    assert slots.take(0) == 4


async def test_nothing_is_taken_while_more_is_in_hand_than_a_server_that_became_slow_takes() -> None:
    slots, only = Slots(4), desk()
    for _ in range(100):
        slots.paced(0.01)
    slots.take(0)
    for _ in range(3):
        slots.paced(3.0)
    slots.give_back(28)
    assert not slots.offered(only)
    slots.give_back(2)
    assert slots.take(0) == 2
