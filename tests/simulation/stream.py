"""The log in a simulation: one broker that forgets nothing, and faults on the way to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shared.errors import Unavailable
from shared.log.port import Entry, Fetched, Reader
from tests.fakes.memory_log import MemoryLog
from tests.simulation.machine import Process, VirtualLoop
from tests.simulation.weather import Weather


class SimulatedLog:
    """What one process sees of the broker (`shared.log.port.Log`)."""

    def __init__(self, broker: MemoryLog, process: Process, loop: VirtualLoop, weather: Weather) -> None:
        self.broker, self.process, self.loop, self.weather = broker, process, loop, weather

    @property
    def partitions(self) -> int:
        return self.broker.partitions

    async def append(self, stream: str, partition: int, entries: Sequence[Entry]) -> None:
        await self.reach("append")
        strikes = self.weather.strikes
        if strikes(self.process, "log: append unanswered"):
            # Long enough for what else its process had to write.
            await self.process.step("wait", self.weather.dice.uniform(0.1, 0.5))
            await self.process.step("append silence", self.weather.dice.uniform(0.1, 0.5))
            raise Unavailable(f"{stream}[{partition}]: no answer.")
        if strikes(self.process, "log: append refused"):
            raise Unavailable(f"{stream}[{partition}]: refused.")
        if strikes(self.process, "log: append comes late"):
            self.loop.call_later(self.weather.dice.uniform(0.01, 4.0), self._take, stream, partition, list(entries))
            raise Unavailable(f"{stream}[{partition}]: no answer yet.")
        if len(entries) > 1 and strikes(self.process, "log: a beginning taken"):
            self._take(stream, partition, entries[: self.weather.dice.randrange(1, len(entries))])
            raise Unavailable(f"{stream}[{partition}]: a beginning was taken.")
        self._take(stream, partition, entries)
        if strikes(self.process, "log: answer lost"):
            raise Unavailable(f"{stream}[{partition}]: the answer was lost.")
        await self.process.step("appended", self.weather.delay(self.process, "log"))

    async def reach(self, what: str) -> None:
        await self.process.step(what, self.weather.delay(self.process, "log"))
        if self.weather.away("log"):
            raise Unavailable("the log is away.")

    def _take(self, stream: str, partition: int, entries: Sequence[Entry]) -> None:
        self.broker.take(stream, partition, entries)

    def reader(self, stream: str) -> Reader:
        return _SimulatedReader(self, self.broker.reader(stream))

    async def ends(self, stream: str) -> dict[int, int]:
        await self.reach("ends")
        return await self.broker.ends(stream)

    async def ready(self) -> str | None:
        return "the log is away" if self.weather.away("log") else None

    async def installation(self) -> str | None:
        return await self.broker.installation()

    async def set_installation(self, id: str) -> None:
        await self.broker.set_installation(id)

    async def start(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to let go of."""


class _SimulatedReader:
    def __init__(self, log: SimulatedLog, reader: Reader) -> None:
        self._log, self._reader = log, reader

    def assign(self, offsets: Mapping[int, int]) -> None:
        self._reader.assign(offsets)

    async def fetch(self, partition: int, limit: int, wait: float) -> Fetched:
        log = self._log
        await log.reach("fetch")
        strikes = log.weather.strikes
        if strikes(log.process, "log: fetch fails"):
            raise Unavailable("the fetch failed.")
        if strikes(log.process, "log: silent"):
            await log.process.step("silence", wait)
            raise Unavailable("the log is silent.")
        if limit > 1 and strikes(log.process, "log: short fetch"):
            limit = log.weather.dice.randrange(1, limit)
        return await self._reader.fetch(partition, limit, wait)

    def seek(self, partition: int, offset: int) -> None:
        self._reader.seek(partition, offset)

    async def close(self) -> None:
        await self._reader.close()
