"""Everything but ingest is away for some hours: what came meanwhile is heard in the order in which it came."""

from __future__ import annotations

from datetime import datetime, timedelta

from house import HOUR_A_SECOND, MINUTE_A_SECOND, WRITE_KEY, House, Process, a_house, added, identify, ordered
from patience import until

from shared.contracts.streams import DEFAULT_PARTITIONS
from shared.database.embedded import EmbeddedPostgres
from shared.database.engine import Database
from shared.processing.installation import open_installation
from shared.security import hash_key


async def test_an_order_within_the_hour_wins_over_the_reminder_that_an_outage_has_made_late() -> None:
    async with a_house(speed=MINUTE_A_SECOND) as house:
        await house.start()
        for user in ("ann", "bob"):
            await house.post(identify(user), added(user, f"cart-{user}"))
            await until(lambda user=user: house.enrollments(user, "abandoned-cart"), what="the enrollments")
        (enrollment,) = await house.enrollments("ann", "abandoned-cart")
        reminder_due = datetime.fromisoformat(enrollment["due"])
        await house.process.kill()
        await an_order_while_only_ingest_is_there(house, reminder_due)
        # The order and the reminder's hour both wait when everything comes back.
        house.process.environment = {**house.process.environment, "RAPPORT_CLOCK_SPEED": str(HOUR_A_SECOND)}
        await house.start()
        await house.mailed("ann")
        await house.mailed("bob")
        assert house.mails_of("bob")[0] == "cart-reminder"
        # Her thanks were due after the reminder would have been, and on the same road.
        assert house.mails_of("ann") == ["thank-you-first"]
        (order,) = await house.timeline("ann", "Order Completed")
        (enrollment,) = await house.enrollments("ann", "abandoned-cart")
        assert (enrollment["reason"], enrollment["step"]) == ("goal", "wait-1h")
        assert enrollment["goal_at"] == order["received_at"]
        assert datetime.fromisoformat(order["received_at"]) < reminder_due


async def an_order_while_only_ingest_is_there(house: House, due: datetime) -> None:
    """Ingest alone takes an order. Returns once the clock has passed `due` by an hour."""
    async with EmbeddedPostgres(house.data / "postgres") as postgres:
        sources = house.folder / "sources.yaml"
        sources.write_text(f"sources: [{{name: shop, keys: [{hash_key(WRITE_KEY)}]}}]\n")
        environment = {
            "DATABASE_URL": postgres.url,
            "RAPPORT_INGEST_SOURCES": str(sources),
            "RAPPORT_CLOCK_SPEED": str(MINUTE_A_SECOND),
        }
        arguments = ["serve", "ingest", "--host", "127.0.0.1", "--port", str(house.port)]
        ingest = Process(arguments, house.folder, name="ingest", environment=environment)
        database = Database(postgres.url)
        try:
            await ingest.start()
            await house.post(ordered("ann", "order-ann", "cart-ann"))
            assert await ingest.stop() == 0
            async with database.connect() as connection:
                clock = (await open_installation(connection, DEFAULT_PARTITIONS, HOUR_A_SECOND)).clock

            async def passed() -> bool:
                return clock.now() > due + timedelta(hours=1)

            await until(passed, what="an hour more")
        finally:
            await ingest.kill()
            await database.close()
