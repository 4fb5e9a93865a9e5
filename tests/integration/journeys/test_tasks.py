"""Tasks on a real database: opened by a journey, done once."""

from __future__ import annotations

from datetime import timedelta

from test_journeys_service import FILES, NOON, Town, town  # noqa: F401

from services.journeys import store
from shared.language import load

JOURNEY = """
journey: abandoned-cart
trigger: {event: Complained, key: event.order_id}
defaults: {topic: cart-reminders}
steps:
  - id: call
    task: {title: '"Call about " + key', note: trigger.text, due: 2d}
  - email: reminder
    with: {orders: 1}
  - email: last-call
"""


async def test_a_task_waits_for_somebody_until_one_says_that_it_is_done(town: Town) -> None:  # noqa: F811
    files = {**FILES, "journeys/abandoned-cart.yaml": JOURNEY}
    await town.apply(load({path: text.encode() for path, text in files.items()}), NOON)
    await town.tell("ann", town.did("ann", "Complained", NOON, {"order_id": "o1", "text": "It is broken."}))
    await town.requests(1)
    async with town.database.connect() as connection:
        ((task, done),) = await store.tasks(connection, done=False, limit=10)
        assert done is None
        assert (task.customer, task.title, task.note, task.key) == ("ann", "Call about o1", "It is broken.", "o1")
        assert (task.opened_at, task.due) == (NOON, NOON + timedelta(days=2))
        assert await store.tasks_named(connection, task.id[:6].upper()) == [task]
        said = store.Done(NOON + timedelta(hours=1), "Kim", "A new one is sent.")
        assert await store.close_task(connection, task.id, said)
        assert not await store.close_task(connection, task.id, said)
        assert await store.tasks(connection, done=False, limit=10) == []
        assert await store.tasks(connection, done=True, limit=10, customer="ann") == [(task, said)]
        assert await store.tasks(connection, done=True, limit=10, customer="bo") == []
