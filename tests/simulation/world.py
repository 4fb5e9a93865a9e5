"""One history, played: the real services on a simulated machine, with everything that the history brings upon them."""

from __future__ import annotations

import asyncio
import base64
import random
import traceback
from collections import Counter
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg
import msgspec
import structlog

from services.ingest.api import Intake
from services.ingest.batching import OpenBatches
from services.ingest.sources import GivenSources
from services.journeys.store import playbooks_in_use
from services.journeys.worker import JourneysProcessor
from services.mailer.composing import Composer
from services.mailer.consent import normalise
from services.mailer.doors import Doors
from services.mailer.links import Links
from services.mailer.sending import Sending
from services.mailer.store import Channel
from services.mailer.worker import MailerProcessor
from services.segmenter.batch import decode_memo
from services.segmenter.percentiles import next_night
from services.segmenter.rules import playbooks_of
from services.segmenter.worker import SegmenterProcessor
from shared.contracts.streams import EVENTS
from shared.language.playbook import Playbook
from shared.processing import playbooks
from shared.processing.installation import Installation
from shared.processing.playbooks import hash_of, paused_in
from shared.processing.port import Connection, Processor
from shared.processing.worker import Worker
from shared.runtime import Runtime
from shared.settings import Settings
from tests.fakes.memory_log import MemoryLog
from tests.simulation.database import Server, Sessions, SimulatedDatabase
from tests.simulation.history import (
    PROCESSES,
    SOURCE,
    WORKERS,
    Act,
    Apply,
    Click,
    Halt,
    History,
    Kill,
    Leap,
    Look,
    Outage,
    Post,
    Terminate,
    Unsubscribe,
)
from tests.simulation.machine import Process, SimulatedClock, Stuck, VirtualLoop, register_tasks
from tests.simulation.playbooks import variants
from tests.simulation.post_office import Handed, PostOffice, SimulatedGateway, SimulatedTransport
from tests.simulation.stream import SimulatedLog
from tests.simulation.weather import Weather

SECRET = b"secret" * 6
_LINKS = Links(SECRET, "https://lamps.example/mailer")
_COMPOSER = Composer(_LINKS)
_KEY = "key"
_AUTHORISATION = b"Basic " + base64.b64encode(f"{_KEY}:".encode())
_PROMOTIONAL = ("reminders", "greetings")
_PATIENCE = 120.0
_MOST_SILENT_SECONDS = 6.0
"""A heartbeat expires after 3.2."""
_OWNED = "SELECT partition FROM processing.partitions WHERE owner = $1"
_WRITTEN_WITHIN = 0.3
"""Seconds after which what a hand-over came to has been written down, where it ever is."""


class _Shelf:
    """All playbooks, loaded once for all processes and histories (`shared.processing.playbooks.Shelf`)."""

    async def get(self, connection: Connection, name: str) -> Playbook:
        found = next(playbook for playbook in variants() if playbook.hash == hash_of(name))
        return found.pausing(paused_in(name))


SHELF = _Shelf()


@dataclass(frozen=True)
class Living:
    """A process that runs, and what of it the world speaks to."""

    process: Process
    worker: Worker | None = None
    intake: Intake | None = None
    doors: Doors | None = None


class World:
    def __init__(self, history: History, server: Server, loop: VirtualLoop) -> None:
        self.history, self.server, self.loop = history, server, loop
        self.dice = random.Random(f"world {history.seed}")
        self.clock = SimulatedClock(loop)
        self.weather = Weather(random.Random(f"weather {history.seed}"), loop, history.roughness, self.tell)
        self.broker = MemoryLog(history.partitions)
        self.sessions = Sessions(server, loop, self.weather)
        self.sessions.decided = self._meanwhile
        self.office = PostOffice()
        self.story: list[str] = []
        self.living: dict[str, Living] = {}
        self.acknowledged: dict[str, dict[str, Any]] = {}
        """Calls that were answered with 200, by message id."""
        self.refused: Counter[str] = Counter()
        """Answers by status, of calls that were not taken."""
        self.posted: dict[str, dict[str, Any]] = {}
        self.applied: list[Apply] = []
        self.lost: list[str] = []
        """Errors that nobody expects: defects."""
        self._fine = asyncio.Event()
        """The weather is, from now on: nobody is kept away, or stopped, any more."""
        self._first_tried: dict[str, datetime] = {}
        self._under_way: set[asyncio.Task[None]] = set()
        self.installation = Installation(_UUID, 1, SECRET, self.clock)
        self._settings = Settings(
            heartbeat_seconds=1.5,
            expiry_seconds=3.2,
            batch_records=history.batch_records,
            partitions_in_flight=2,
            gather_seconds=history.gather_seconds,
        )

    def tell(self, who: str, what: str) -> None:
        self.story.append(f"{self.loop.time():9.3f} {self.clock.now():%d %H:%M:%S} {who:12} {what}")

    # Playing.

    async def play(self) -> None:
        """The whole history, and then fine weather until nothing is left to be done."""
        register_tasks(self.loop)
        for name in PROCESSES:
            self._spawn(name)
        self._later(self._apply(Apply(0.0, variant=self.history.variant, paused=False, moves=False)))
        for act in self.history.acts:
            await asyncio.sleep(act.at - self.loop.time())
            self.tell("world", str(act))
            self._bring_about(act)
        await asyncio.sleep(1.0)
        self.weather.clear_up()
        self._fine.set()
        for name in PROCESSES:
            if name not in self.living:
                self._spawn(name)
            self.living[name].process.go_on()
        self.tell("world", "fine weather")
        async with asyncio.timeout(_PATIENCE):
            while self._under_way:
                await asyncio.wait(self._under_way)
        await self._settled()
        self.weather.clear_up()
        await self._leap_while_asked(timedelta(days=3))
        await self._settled()
        self._find_out()
        self.clock.leap(timedelta(days=9))
        await self._settled()
        self.tell("world", "the end")

    async def end(self) -> None:
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        for living in list(self.living.values()):
            await living.process.die()

    def _bring_about(self, act: Act) -> None:
        match act:
            case Leap(by=by):
                self.clock.leap(by)
            case Post():
                self._later(self._post(act))
            case Kill(process=name, back_after=seconds):
                self.weather.injected["process killed"] += 1
                self._later(self._kill(name, seconds))
            case Terminate(process=name, back_after=seconds):
                self.weather.injected["process terminated"] += 1
                self._later(self._terminate(name, seconds))
            case Halt(process=name, seconds=seconds):
                self.weather.injected["process stopped"] += 1
                self._later(self._halt(name, seconds))
            case Outage(what=what, seconds=seconds):
                self.weather.begin_outage(what, seconds)
            case Apply():
                self._later(self._apply(act))
            case Click(which=which):
                self._later(self._click(which))
            case Look(which=which, machine=machine):
                self._later(self._look(which, machine))
            case Unsubscribe(which=which, everything=everything):
                if (mail := self._mail(which)) is not None:
                    self._later(self._unsubscribe(mail.message, everything))

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.lost.append(f"the world: {type(error).__name__}: {error}")

    async def _leap_while_asked(self, by: timedelta) -> None:
        """Which timers are due is asked before, and answered after. Who has just begun asks each second."""
        await self._terminate(self.dice.choice(["segmenter-1", "segmenter-2"]), 0.0)
        await asyncio.sleep(0.5)
        self.weather.begin_stall(1.6)
        await asyncio.sleep(0.7)
        self.clock.leap(by)

    async def _settled(self) -> None:
        """Until everybody has done all that there is to do at this hour."""
        since, until = self.clock.now(), self.loop.time() + _PATIENCE
        while left := await self._left_to_do(since):
            if self.loop.time() > until:
                raise Stuck("; ".join(left))
            await asyncio.sleep(0.1)

    async def _left_to_do(self, since: datetime) -> list[str]:
        # As their owners know it, who cost nothing to ask: what leaves no trace is written down later.
        left = []
        for service, stream in (("segmenter", "events"), ("journeys", "customers"), ("mailer", "messages")):
            workers = [one.worker for name, one in self.living.items() if one.worker and name.startswith(service)]
            for partition, end in (await self.broker.ends(stream)).items():
                lanes = [lane for worker in workers if (lane := worker.lane(partition)) is not None]
                if not any(lane.next_offset == end and lane.as_of >= since for lane in lanes):
                    left.append(f"{service}[{partition}] is to come to {end} and {since}")
        if left:
            return left
        rows = self.query("SELECT service, partition, owner FROM processing.partitions")
        owners = {living.worker.id: living.worker for living in self.living.values() if living.worker}
        for service, partition, owner in rows:
            if owner not in owners or owners[owner].lane(partition) is None:
                left.append(f"{service}[{partition}] is owned by {owner}")
        left += [
            f"{count} rows in {table}"
            for table, where in (
                ("processing.outbox", "true"),
                ("segmenter.sweeps", "NOT finished"),
                ("mailer.messages", "status IN ('requested', 'sending')"),
            )
            for [count] in self.query(f"SELECT count(*) FROM {table} WHERE {where}")
            if count
        ]
        left += self._unranked(since)
        if self._under_way:
            left.append("the world is at work")
        if self.office.under_way or self.loop.time() < self.office.over_at + _WRITTEN_WITHIN:
            left.append("mails and calls are under way")  # also those whose message another owner has ended
        return left if len(rows) == 3 * self.history.partitions else [*left, f"{len(rows)} partitions were made"]

    def _unranked(self, since: datetime) -> list[str]:
        """Whether customers have not been ranked since the last midnight, where the playbook asks for it."""
        lanes = [one.worker.lane(0) for name, one in self.living.items() if one.worker and "segmenter" in name]
        for memo in (decode_memo(lane.memo) for lane in lanes if lane is not None and lane.memo):
            playbook = next(one for one in variants() if one.hash == hash_of(playbooks_of(memo.playbook)[0]))
            last = memo.ranking.at if memo.ranking else memo.since
            if playbook.spend and last and next_night(last, ZoneInfo(playbook.brand.timezone)) <= since:
                return [f"customers are to be ranked, and were last at {last}"]
        return []

    def query(self, sql: str, *args: object) -> list[Any]:
        """Look at what is committed, outside of all time."""
        connection = self.server.take()
        try:
            return [tuple(row) for row in self.server.ask(connection.fetch(sql, *args))]
        finally:
            self.server.give_back(connection)

    # Processes.

    def _spawn(self, name: str) -> None:
        process = Process(name, self.loop, self._at_step)
        log = SimulatedLog(self.broker, process, self.loop, self.weather)
        service = name.partition("-")[0]
        if service == "ingest":
            batches = OpenBatches(log, EVENTS, flush_seconds=0.003, answer_seconds=10, bytes_in_flight=64 << 20)
            intake = Intake(None, GivenSources({SOURCE: [_KEY]}), batches, self.clock, self.history.partitions)  # type: ignore[arg-type]
            intake.open = True
            self.living[name] = Living(process, intake=intake)
            return
        database = SimulatedDatabase(self.sessions, process)
        runtime = Runtime(log, self.clock, database, self.installation)
        doors = None
        processor: Processor
        if service == "segmenter":
            processor = SegmenterProcessor(SHELF, housekeeping_seconds=self.history.housekeeping_seconds)
        elif service == "journeys":
            processor = JourneysProcessor(SHELF)
        else:
            transport = SimulatedTransport(self.office, process, self.weather)
            sending = Sending(transport, _COMPOSER, SHELF, self.clock, timedelta(seconds=60))
            gateway = SimulatedGateway(self.office, process, self.weather)
            channels: tuple[Channel, ...] = ("webhook", "sms", "push")
            calling = [Sending(gateway, _COMPOSER, SHELF, self.clock, timedelta(seconds=60), one) for one in channels]
            processor = MailerProcessor(sending, SHELF, *calling)
            doors = Doors(log, database, self.clock, _LINKS, SHELF)

        async def start() -> None:
            while True:
                try:
                    await worker.start()
                    return
                except (OSError, asyncpg.InterfaceError, asyncpg.PostgresError):
                    await asyncio.sleep(0.5)  # whoever starts it starts it again

        worker = process.run(lambda: Worker(runtime, processor, self._settings))
        self.living[name] = Living(process, worker, doors=doors)
        process.begin(start())

    def _at_step(self, process: Process, step: str) -> None:
        if self.weather.kills(process, step):
            self._later(self._kill(process.name, self.dice.uniform(0.1, 5)))
        elif self.weather.stops(process, step):
            worker = self.living[process.name].worker
            assert worker is not None
            self._later(self._stand_still(process, worker))

    async def _kill(self, name: str, seconds: float) -> None:
        living = self.living.pop(name, None)
        if living is None:
            return
        await living.process.die()
        await self._back(name, seconds)

    async def _terminate(self, name: str, seconds: float) -> None:
        living = self.living.get(name)
        if living is None or living.worker is None or living.process.stopped:
            return
        with suppress(asyncio.CancelledError):
            await asyncio.wait([living.process.begin(living.worker.stop())], timeout=40)
        if self.living.get(name) is living:
            del self.living[name]
            await living.process.die()
            await self._back(name, seconds)

    async def _back(self, name: str, seconds: float) -> None:
        await self._bad_weather_for(seconds)
        if name not in self.living:
            self.tell(name, "starts")
            self._spawn(name)

    async def _halt(self, name: str, seconds: float) -> None:
        living = self.living.get(name)
        if living is None:
            return
        living.process.stop()
        await self._bad_weather_for(seconds)
        living.process.go_on()
        self.tell(name, "goes on")

    async def _stand_still(self, process: Process, worker: Worker) -> None:
        """Stopped in the middle of something, until others have what was its own; and then they leave, and it comes
        back."""
        process.stop()
        until = self.loop.time() + _MOST_SILENT_SECONDS
        while self.loop.time() < until and self.query(_OWNED, worker.id):
            await asyncio.sleep(0.2)
        await asyncio.sleep(0.3)
        process.go_on()
        service = process.name.partition("-")[0]
        for other in WORKERS:
            if other.startswith(service) and other != process.name:
                await self._terminate(other, self.dice.uniform(0.1, 4))

    async def _bad_weather_for(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._fine.wait(), seconds)

    async def _apply(self, asked: Apply) -> None:
        """`rapport playbook apply`, with `journeys pause` and `move`, by somebody who does not give up."""
        playbook = variants()[asked.variant]
        paused, moves = (("cart",) if yes else () for yes in (asked.paused, asked.moves))
        process = Process("operator", self.loop, lambda process, what: None)
        log = SimulatedLog(self.broker, process, self.loop, self.weather)
        database = SimulatedDatabase(self.sessions, process)

        async def apply() -> None:
            async with database.connect() as connection:
                in_use = await playbooks_in_use(connection)
                await playbooks.activate(
                    log, connection, playbook, self.clock.now(), in_use, paused=paused, moves=moves
                )

        for _ in range(200):
            try:
                await process.begin(apply())
                break
            except Exception as error:
                self.tell("operator", f"{type(error).__name__}: {error}")
                await asyncio.sleep(0.3)
        else:
            raise Stuck("a playbook cannot be applied")
        self.applied.append(asked)
        self.tell("operator", f"applied: {asked}")
        await process.die()

    # The world outside.

    async def _post(self, post: Post) -> None:
        batch = []
        for call in post.calls:
            id = call["messageId"]
            self.posted[id] = call
            now = self._first_tried.setdefault(id, self.clock.now())
            at = now - post.ago.get(id, timedelta(0))
            batch.append({**call, "timestamp": at.isoformat()})
        for attempt in range(post.tries):
            for call in post.calls:
                if call.get("event") == "Topic Subscribed":
                    topic = call["properties"]["topic"]
                    self.office.silenced = {k: v for k, v in self.office.silenced.items() if k[1] != topic}
            status = await self._ask_ingest({"batch": batch})
            if status == 200:
                self.acknowledged |= {call["messageId"]: call for call in post.calls}
                return
            self.refused[str(status)] += 1
            await asyncio.sleep(min(0.2 * 2**attempt, 3.0) * self.dice.uniform(0.5, 1.0))

    async def _ask_ingest(self, body: dict[str, Any]) -> int | None:
        """The status of the answer; None where there was none."""
        living = self.living.get(self.dice.choice(["ingest-1", "ingest-2"]))
        if living is None:
            return None
        answers: list[int] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": msgspec.json.encode(body)}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                answers.append(message["status"])

        async def call() -> None:
            assert living is not None
            assert living.intake is not None
            await living.process.step("request", self.weather.delay(living.process, "log"))
            scope = {"type": "http", "method": "POST", "path": "/v1/batch", "headers": headers}
            await living.intake(scope, receive, send)

        headers = [(b"authorization", _AUTHORISATION)]
        await asyncio.wait([living.process.begin(call())], timeout=12)
        return answers[0] if answers else None

    def _mail(self, which: float) -> Handed | None:
        handed = self.office.handed
        return handed[int(which * len(handed))] if handed else None

    def _door(self) -> Living | None:
        return self.living.get(self.dice.choice(["mailer-1", "mailer-2"]))

    def _find_out(self) -> None:
        """Most of those who have a mail of which that is not known look at it and click at the same moment."""
        unknown = {id for [id] in self.query("SELECT id FROM mailer.messages WHERE status = 'unknown'")}
        for mail in self.office.handed:
            if mail.message in unknown and self.dice.random() < 0.7:
                self._later(self._look_at(mail, False))
                self._later(self._click_in(mail))

    async def _click(self, which: float) -> None:
        if (mail := self._mail(which)) is not None:
            await self._click_in(mail)

    async def _click_in(self, mail: Handed) -> None:
        living = self._door()
        if living is None:
            return
        assert living.doors is not None
        token = _LINKS.click(mail.message, 0).rpartition("/")[2]
        await asyncio.wait(
            [living.process.begin(living.doors.click(token, "Mozilla/5.0 (X11) Firefox", True))], timeout=10
        )

    async def _look(self, which: float, machine: bool) -> None:
        if (mail := self._mail(which)) is not None:
            await self._look_at(mail, machine)

    async def _look_at(self, mail: Handed, machine: bool) -> None:
        living = self._door()
        if living is None:
            return
        assert living.doors is not None
        token = _LINKS.open(mail.message).rpartition("/")[2]
        agent = "Mozilla/5.0" if machine else "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
        await asyncio.wait([living.process.begin(living.doors.open(token, agent, True))], timeout=10)

    def _meanwhile(self, going: list[tuple[str, str]]) -> None:
        """One of those who are to get a mail, as is decided at this moment, says no by an earlier one."""
        wishes = [
            (mail.message, mail.topic != topic)
            for address, topic in going
            for mail in self.office.handed
            if mail.address == address and (mail.topic == topic or topic in _PROMOTIONAL) and topic != "receipts"
        ]
        if wishes:
            self._later(self._unsubscribe(*self.dice.choice(wishes)))

    async def _unsubscribe(self, message: str, everything: bool) -> None:
        token = _LINKS.unsubscribe(message).rpartition("/")[2]
        for _ in range(3):
            living = self._door()
            if living is not None:
                assert living.doors is not None
                asked = living.process.begin(living.doors.decide(token, "everything" if everything else ""))
                await asyncio.wait([asked], timeout=10)
                if asked.done() and not asked.cancelled() and asked.result().status_code == 200:
                    self._note_unsubscribed(message, everything)
                    return
            await asyncio.sleep(0.5)

    def _note_unsubscribed(self, message: str, everything: bool) -> None:
        [[address, topic]] = self.query("SELECT address, topic FROM mailer.messages WHERE id = $1", message)
        in_hand = {row[0] for row in self.query("SELECT id FROM mailer.messages WHERE status = 'sending'")}
        for silenced in _PROMOTIONAL if everything else (topic,):
            if silenced != "receipts":
                self.office.silenced[normalise(address) or "", silenced] = set(in_hand)
        self.tell("door", f"unsubscribed {address} from {'everything' if everything else topic}")


_UUID = UUID(int=7)


def hear(world: World) -> None:
    """What the services log goes into the story."""

    def keep(logger: object, method: str, event: dict[str, Any]) -> Any:
        said = ", ".join(
            f"{key}={value}" for key, value in event.items() if key not in ("event", "exc_info", "service")
        )
        world.tell(str(event.get("service", "")), f"{method}: {event['event']} {said}")
        if method == "error" and event["event"] not in _EXPECTED_ERRORS:
            error = event.get("exc_info")
            told = "".join(traceback.format_exception(error)[-2:]) if isinstance(error, BaseException) else ""
            world.lost.append(f"{event.get('service')}: {event['event']} {said} {told}")
        raise structlog.DropEvent

    structlog.configure(processors=[keep], cache_logger_on_first_use=False)


_EXPECTED_ERRORS = {"click or open lost", "coupon not announced", "coupons have run out"}
