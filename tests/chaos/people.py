"""Who gets the mails: people who read them, follow their links and want no more of them; and programs that look first.

Everything that they do is written down before it is done, and once more when it was answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

import asyncpg
import httpx

from tests.chaos.ledger import Ledger
from tests.chaos.mails import Letter, MailServer
from tests.chaos.visits import Visit

_PERSON = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
_SCANNERS = ("python-scanner/1.0", "Mozilla/5.0", "", "SafeLinks/2")
_TOPICS = {
    "receipt": "receipts",
    "reminder": "carts",
    "last-word": "carts",
    "cooled": "notes",
    "statement": "notes",
    "parting": "notes",
}
_LOOKED_FOR = 1.5
"""Seconds that a program takes at most to look at a mail before it is let in."""


class People:
    """`doors` are the addresses of mailers that may be asked, and the numbers of their processes; `look` connects to
    where it is written down which mails are sent."""

    def __init__(
        self,
        ledger: Ledger,
        mails: MailServer,
        doors: Callable[[], Sequence[tuple[str, int]]],
        look: Callable[[], Awaitable[asyncpg.Connection]],
        seed: int,
    ) -> None:
        self.ledger = ledger
        self.did: Counter[str] = Counter()
        self._mails = mails
        self._doors, self._look = doors, look
        self._random = random.Random(seed)
        self._http = httpx.AsyncClient(timeout=6, limits=httpx.Limits(max_connections=200))
        self._open = False
        self._tasks: list[asyncio.Task[None]] = []
        self._readers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> People:
        self._mails.let_in = self._scanned
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in (*self._tasks, *self._readers):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._readers, return_exceptions=True)
        await self._http.aclose()

    def open(self) -> None:
        self._open = True
        self._tasks = [asyncio.create_task(self._read_all()), asyncio.create_task(self._note_what_is_sent())]

    async def close(self) -> None:
        """Let those who read finish, and nobody begin."""
        self._open = False
        await asyncio.gather(*self._tasks)
        await asyncio.gather(*self._readers)
        self._tasks, self._readers = [], []

    def check(self) -> None:
        """Raises what somebody has died of."""
        for task in (*self._tasks, *self._readers):
            if task.done():
                task.result()
        self._readers = [task for task in self._readers if not task.done()]

    async def _read_all(self) -> None:
        seen = 0
        while self._open:
            await asyncio.sleep(0.2)
            letters, seen = self._mails.delivered[seen:], len(self._mails.delivered)
            for letter in letters:
                reader = asyncio.create_task(self._read(letter, random.Random(self._random.random())))
                self._readers.append(reader)

    async def _note_what_is_sent(self) -> None:
        """From when on it was seen to be written down: whoever follows a link before is quick."""
        known = self.ledger.written_down
        while self._open:
            with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                connection = await self._look()
                try:
                    while self._open:
                        for [id] in await connection.fetch(
                            "SELECT id FROM mailer.messages WHERE status = 'sent' AND channel = 'email'"
                        ):
                            known.setdefault(id, time.time())
                        await asyncio.sleep(0.5)
                finally:
                    connection.terminate()
            await asyncio.sleep(0.5)

    async def _read(self, letter: Letter, dice: random.Random) -> None:
        await asyncio.sleep(dice.uniform(0.0, 4.0))
        what = dice.random()
        if what < 0.03:
            await self._unsubscribe(letter, dice)
        elif what < 0.10:
            await self._scan(letter, dice.choice(_SCANNERS), dice)
        elif what < 0.75:
            await self._visit(letter, "", letter.image, _PERSON, dice)
            if letter.links:
                await asyncio.sleep(dice.uniform(0.0, 3.0))
                target, path = dice.choice(letter.links)
                await self._visit(letter, target, path, _PERSON, dice)
                if dice.random() < 0.2:
                    await self._visit(letter, *dice.choice(letter.links), _PERSON, dice)

    async def _scanned(self, letter: Letter) -> None:
        """By what passes for a browser, before the mail server says yes."""
        if self._open and letter.links and self._random.random() < 0.1:
            self.did["mails looked at before they were let in"] += 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOKED_FOR):
                    await self._scan(letter, _PERSON, self._random)
            for visit in self.ledger.visits:
                visit.before_yes |= visit.message == letter.message and visit.answered is not None

    async def _scan(self, letter: Letter, agent: str, dice: random.Random) -> None:
        """Everything that the mail links to; some ask for heads alone, and the page that unsubscribes asks first."""
        if dice.random() < 0.2:
            self.did["heads asked for"] += 1
            for path in (letter.image, *(path for _, path in letter.links)):
                await self._ask("HEAD", path, agent, dice)
            return
        visits = (
            self._visit(letter, target, path, agent, dice) for target, path in [("", letter.image), *letter.links]
        )
        await asyncio.gather(*visits)
        await self._ask("GET", letter.unsubscribe, agent, dice)

    async def _visit(self, letter: Letter, target: str, path: str, agent: str, dice: random.Random) -> None:
        doors = self._doors()
        if not doors:
            return
        door, pid = dice.choice(doors)
        alone = not target or len(letter.links) == 1
        visit = Visit(letter.message, target, agent != _PERSON, alone, time.time(), pid)
        self.ledger.visits.append(visit)
        try:
            answer = await self._http.get(f"{door}{path}", headers={"User-Agent": agent})
        except httpx.TransportError:
            self.did["visits without an answer"] += 1
            return
        if answer.status_code == 503:
            # Nothing was taken, as it says.
            self.ledger.visits.remove(visit)
            self.did["visits answered 503"] += 1
            return
        right = (302, target) if target else (200, None)
        assert (answer.status_code, answer.headers.get("location")) == right, (visit, answer.status_code, answer.text)
        visit.answered = time.time()
        self.did["links followed" if target else "images fetched"] += 1

    async def _unsubscribe(self, letter: Letter, dice: random.Random) -> None:
        stopped = letter.customer, _TOPICS[letter.name]
        self.ledger.asked_to_stop.add(stopped)
        answer = await self._ask("POST", letter.unsubscribe, _PERSON, dice, {"List-Unsubscribe": "One-Click"})
        if answer == 200:
            self.ledger.unsubscribed.setdefault(stopped, time.time())
            self.did["unsubscribed"] += 1

    async def _ask(
        self, method: str, path: str, agent: str, dice: random.Random, said: dict[str, str] | None = None
    ) -> int:
        """The status of the answer; 0 where there was none."""
        doors = self._doors()
        if not doors:
            return 0
        try:
            door, _ = dice.choice(doors)
            answer = await self._http.request(method, f"{door}{path}", headers={"User-Agent": agent}, data=said)
        except httpx.TransportError:
            return 0
        assert answer.status_code in (200, 302, 409, 503), (method, path, answer.status_code, answer.text)
        return answer.status_code
