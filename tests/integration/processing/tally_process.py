"""A process of its own that runs a worker of the tally service: `python tally_process.py DATABASE_URL`."""

from __future__ import annotations

import asyncio
import signal
import sys

from tally import Tally

from shared.clock import SystemClock
from shared.database.engine import Database
from shared.log.postgres import PostgresLog
from shared.processing.installation import open_installation
from shared.processing.worker import Worker
from shared.runtime import Runtime
from shared.settings import Settings


async def main(url: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    database = Database(url)
    log = PostgresLog(database, 4)
    await log.start()
    async with database.connect() as connection:
        installation = await open_installation(connection, 4, None)
    settings = Settings(heartbeat_seconds=0.2, expiry_seconds=1.0, batch_records=5)
    worker = Worker(Runtime(log, SystemClock(), database, installation), Tally(), settings)
    await worker.start()
    await stop.wait()
    await worker.stop()
    await log.close()
    await database.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
