"""The mail server in a simulation, and who is called: they remember what they have taken. And the ways to them."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from services.mailer.consent import normalise
from services.mailer.transport import Accepted, Deferred, Mail, Receipt, Rejected, Unknown
from shared.contracts.messages import PUSH, SMS
from tests.simulation.machine import Process
from tests.simulation.weather import Weather


class Handed(NamedTuple):
    """A mail that the server has accepted. `at` is the machine's time."""

    message: str
    address: str
    topic: str
    customer: str
    at: float


class PostOffice:
    """`begun` counts how often DATA was said, by message. `silenced` maps (address, topic) to the messages that were in
    hand when an unsubscribe was acknowledged: any other that begins for it is a breach."""

    def __init__(self) -> None:
        self.handed: list[Handed] = []
        self.accepted: Counter[str] = Counter()
        self.begun: Counter[str] = Counter()
        self.silenced: dict[tuple[str, str], set[str]] = {}
        self.breaches: list[str] = []
        self.called: defaultdict[tuple[str, str, str], set[str]] = defaultdict(set)
        """By enrollment, step and message: the ids under which it was called."""
        self.took: Counter[str] = Counter()
        """How often a call with this id was taken."""
        self.under_way = 0
        """Hand-overs of processes that live."""
        self.over_at = 0.0
        """When the last of them came to its end, in the machine's time."""

    @contextmanager
    def handing_over(self) -> Iterator[None]:
        self.under_way += 1
        try:
            yield
        finally:
            self.under_way -= 1
            self.over_at = asyncio.get_running_loop().time()

    def begin(self, mail: Mail) -> None:
        self.begun[mail.request.id] += 1
        key = (normalise(mail.recipient) or "", mail.request.topic)
        in_hand = self.silenced.get(key)
        if in_hand is not None:
            if mail.request.id not in in_hand:
                self.breaches.append(f"{mail.request.id} to {key[0]} began after {key[1]} was unsubscribed")
            in_hand.discard(mail.request.id)

    def accept(self, mail: Mail, at: float) -> None:
        request = mail.request
        self.accepted[request.id] += 1
        self.handed.append(Handed(request.id, normalise(mail.recipient) or "", request.topic, request.customer, at))


class SimulatedTransport:
    """A way to the post office (`services.mailer.transport.Transport`)."""

    connections = 4

    def __init__(self, office: PostOffice, process: Process, weather: Weather) -> None:
        self._office, self._process, self._weather = office, process, weather

    async def deliver(self, mail: Mail, data_by: float) -> Receipt:
        with self._office.handing_over():
            return await self._deliver(mail, data_by)

    async def _deliver(self, mail: Mail, data_by: float) -> Receipt:
        loop, process, weather = asyncio.get_running_loop(), self._process, self._weather
        await process.step("smtp connect", weather.delay(process, "smtp"))
        if weather.away("smtp") or weather.strikes(process, "smtp: no connection"):
            return Deferred("", "connection")
        if weather.strikes(process, "smtp: late for DATA"):
            await process.step("smtp waits", weather.dice.uniform(4.0, 9.0))
        if weather.strikes(process, "smtp: 4xx"):
            return Deferred("451 4.7.1 later, please", "greylisted")
        if weather.strikes(process, "smtp: no such address"):
            return Rejected("550 5.1.1 nobody here", True)
        if loop.time() >= data_by:
            return Deferred("", "abandoned")
        self._office.begin(mail)
        await process.step("smtp data", weather.delay(process, "smtp"))
        if weather.strikes(process, "smtp: dropped before the dot"):
            return Deferred("", "connection")
        await process.step("smtp dot", weather.delay(process, "smtp"))
        if weather.strikes(process, "smtp: 5xx"):
            return Rejected("554 5.6.0 not this", False)
        if weather.strikes(process, "smtp: dropped after the dot, lost"):
            return Unknown("connection_lost")
        self._office.accept(mail, loop.time())
        if weather.strikes(process, "smtp: silent after the dot"):
            # Longer than it takes others to own the partition, and to leave it again.
            await process.step("smtp silence", weather.dice.uniform(8.0, 15.0))
        await process.step("smtp answer", weather.delay(process, "smtp"))
        if weather.strikes(process, "smtp: dropped after the dot, taken"):
            return Unknown("connection_lost")
        return Accepted("250 2.0.0 ok")

    async def start(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to let go of."""


class SimulatedGateway:
    """A way to whoever takes calls: the shop, and the gateways of text messages and notifications."""

    connections = 2

    def __init__(self, office: PostOffice, process: Process, weather: Weather) -> None:
        self._office, self._process, self._weather = office, process, weather

    async def deliver(self, mail: Mail, data_by: float) -> Receipt:
        with self._office.handing_over():
            return await self._deliver(mail)

    async def _deliver(self, mail: Mail) -> Receipt:
        process, weather, request = self._process, self._weather, mail.request
        await process.step("call", weather.delay(process, "smtp"))
        if weather.away("smtp") or weather.strikes(process, "call: no connection"):
            return Deferred("", "connection")
        self._office.called[request.enrollment, request.step, request.message].add(request.id)
        if weather.strikes(process, "call: 503"):
            return Deferred("503", "deferred")
        if weather.strikes(process, "call: 410"):
            return Rejected("410", request.channel in (SMS, PUSH), "gone")
        self._office.took[request.id] += 1
        await process.step("call answer", weather.delay(process, "smtp"))
        if weather.strikes(process, "call: answer lost"):
            return Deferred("no answer in time", "timeout")
        return Accepted("200")

    async def start(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to let go of."""
