"""A mailer in a process of its own, for a test that kills it: `killed_sender.py DATABASE_URL`."""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta

from conftest_mailer import NOON, PARTITIONS, PlaybookInForce, Postbox, compose, playbook

from services.mailer.sending import Sending
from services.mailer.worker import MailerProcessor
from shared.clock import ManualClock
from shared.database.engine import Database
from shared.log.postgres import PostgresLog
from shared.processing.installation import open_installation
from shared.processing.worker import Worker
from shared.runtime import Runtime
from shared.settings import Settings


async def main(url: str) -> None:
    database = Database(url)
    log = PostgresLog(database, PARTITIONS)
    await log.start()
    async with database.connect() as connection:
        installation = await open_installation(connection, PARTITIONS, 1.0)
    clock = ManualClock(NOON)
    shelf = PlaybookInForce(playbook())
    sending = Sending(Postbox(), compose, shelf, clock, timedelta(minutes=1))
    runtime = Runtime(log, clock, database, installation)
    worker = Worker(runtime, MailerProcessor(sending, shelf), Settings(heartbeat_seconds=0.1, expiry_seconds=120.0))
    await worker.start()
    await asyncio.Event().wait()


asyncio.run(main(sys.argv[1]))
