"""What the links of mails do: a click leads on, an image shows nothing, and both are reported; an unsubscribe is taken
before it is answered."""

from __future__ import annotations

import asyncio
import contextlib
from base64 import b64decode
from collections.abc import Coroutine, Mapping, Sequence
from datetime import datetime
from urllib.parse import quote, urlsplit, urlunsplit

import idna
import structlog
from fastapi import Response
from fastapi.responses import HTMLResponse, RedirectResponse

from services.mailer import page_store, pages, store
from services.mailer.consent import Decision, normalise, refusal
from services.mailer.links import Click, Links, Open, Unsubscribe, occurrence
from services.mailer.openers import RUSH, clicked_by, opened_by
from services.mailer.outcomes import arrived, report
from services.mailer.page_store import Sent
from shared.clock import Clock
from shared.consent import EVERY_TOPIC, later
from shared.contracts import events
from shared.contracts.messages import EMAIL
from shared.contracts.streams import EVENTS, partition_of
from shared.database.engine import Database, is_transient
from shared.errors import Unavailable
from shared.language.playbook import Playbook, Topic
from shared.log.port import Entry, Log
from shared.processing import playbooks
from shared.processing.playbooks import PlaybookUnusable, Shelf
from shared.processing.port import Connection

_CLICKED, _OPENED = "clicked", "opened"
"""Why a message of which it was not known counts as sent."""
_KEPT = "%/:=&?~#+!$,;'@()*[]-._"
"""What stands in an address as it is, beside letters and digits."""
_TRIES = 60.0
"""Seconds for which a click or an open that the log did not take is tried again."""
_PIXEL = b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
"""A GIF of one transparent pixel."""
_PIXEL_HEADERS: Mapping[str, str] = {
    # Each time it is looked at, it is fetched anew: Gmail's proxy heeds that.
    "Cache-Control": "no-store, no-cache, max-age=0",
    "X-Robots-Tag": "noindex",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "cross-origin",
}


class Doors:
    """Answers the links of mails. The service calls `stop`, which waits for clicks under way.

    `click_seconds` is how long a person who clicked waits for the log. Longer, and the click is reported behind the
    redirect."""

    def __init__(
        self, log: Log, database: Database, clock: Clock, links: Links, shelf: Shelf, *, click_seconds: float = 1.0
    ) -> None:
        self._log = log
        self._database = database
        self._clock = clock
        self._links = links
        self._shelf = shelf
        self._click_seconds = click_seconds
        self._reporting: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._lately: dict[str, list[tuple[datetime, str]]] = {}
        """By message, which links were followed within the last moments, and when: so far as this process has seen."""
        self._logger = structlog.get_logger(service="mailer")

    async def stop(self) -> None:
        """Give the clicks and opens under way a moment; what the log does not take then is lost, and said to be."""
        self._stopping.set()
        if self._reporting:
            _, unfinished = await asyncio.wait(self._reporting, timeout=self._click_seconds)
            for task in unfinished:
                task.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)
            if unfinished:
                self._logger.error("clicks or opens lost", count=len(unfinished))

    async def click(self, token: str, agent: str, counts: bool) -> Response:
        """To the target that is kept with the message. The person hardly waits for the log. Who followed the link is
        told from `agent`, from how soon it was, and from what else is followed in this mail at the same time."""
        click = self._links.read(token)
        if not isinstance(click, Click):
            return page(pages.nowhere(), 404)
        try:
            async with self._database.connect() as connection:
                sent = await page_store.sent_message(connection, click.message)
        except Exception as error:
            return self._later(error)
        if sent is None or click.number >= len(sent.links):
            return page(pages.nowhere(sent.request.locale if sent else None), 404)
        target = sent.links[click.number]
        if counts:
            await self._clicked(sent, click, target, agent)
        return RedirectResponse(
            _ascii(target),
            302,
            {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Robots-Tag": "noindex"},
        )

    async def _clicked(self, sent: Sent, click: Click, target: str, agent: str) -> None:
        """Report a click. Where the mail has other links, it is seen first whether those are followed, too: nobody
        waits for that, and a process that is killed meanwhile has not heard of the click."""
        now = self._clock.now()
        alone = len(set(sent.links)) == 1
        if alone or clicked_by(agent, sent.ended_at, now, ()).machine:
            task = self._begin(self._report_click(sent, click, target, agent, now))
            await asyncio.wait([task], timeout=self._click_seconds)
            return
        lately = [one for one in self._lately.get(sent.id, ()) if now - one[0] < 2 * RUSH]
        self._lately[sent.id] = [*lately, (now, target)]
        self._begin(self._report_click_alone(sent, click, target, agent, now))

    async def _report_click_alone(self, sent: Sent, click: Click, target: str, agent: str, at: datetime) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), RUSH.total_seconds() / self._clock.speed)
        lately = self._lately.get(sent.id, [])
        try:
            await self._report_click(sent, click, target, agent, at, [then for then, link in lately if link != target])
        finally:
            # What came last has looked at all that came before it.
            if self._lately.get(sent.id, [])[-1:] == [(at, target)]:
                del self._lately[sent.id]

    async def _report_click(
        self, sent: Sent, click: Click, target: str, agent: str, at: datetime, others: Sequence[datetime] = ()
    ) -> None:
        clicker = clicked_by(agent, sent.ended_at, at, others)
        # Not the person's own click within the same minute.
        id = occurrence(click, f"click {clicker.reason}" if clicker.machine else "click", at)
        properties = {"link": target, "machine": clicker.machine, "reason": clicker.reason}
        event = report(sent.request, id, events.EMAIL_LINK_CLICKED, at, properties)
        await self._report(*self._reports(sent, event, _CLICKED if clicker.has_it else "", at))

    async def open(self, token: str, agent: str, counts: bool) -> Response:
        """One pixel that nobody sees. Who fetched it is told from `agent` and from how soon it was."""
        link = self._links.read(token)
        if not isinstance(link, Open):
            return page(pages.nowhere(), 404)
        try:
            async with self._database.connect() as connection:
                sent = await page_store.sent_message(connection, link.message)
        except Exception as error:
            return self._later(error)
        if sent is None:
            return page(pages.nowhere(), 404)
        if counts:
            now = self._clock.now()
            opener = opened_by(agent, sent.ended_at, now)
            id = occurrence(link, f"open {opener.reason}", now)
            properties = {"machine": opener.machine, "reason": opener.reason}
            event = report(sent.request, id, events.EMAIL_OPENED, now, properties)
            task = self._begin(self._report(*self._reports(sent, event, _OPENED if opener.has_it else "", now)))
            await asyncio.wait([task], timeout=self._click_seconds)
        return Response(_PIXEL, media_type="image/gif", headers=_PIXEL_HEADERS)

    async def ask(self, token: str) -> Response:
        """The page that asks. It changes nothing: mail servers follow links to look at them."""
        found = await self._message(token)
        if isinstance(found, Response):
            return found
        sent, playbook = found
        try:
            async with self._database.connect() as connection:
                known = await self._decisions(connection, sent)
        except Exception as error:
            return self._later(error, sent)
        return page(pages.unsubscribe(_offer(sent, playbook, known), sent.request.locale))

    async def decide(self, token: str, choice: str) -> Response:
        """Take a decision: into the log, then to the address under its lock, then the answer.

        From the answer on no hand-over against it begins. What is decided already is not written again, so asking twice
        is harmless. Whatever `choice` is none of ours stands for the one click of RFC 8058."""
        found = await self._message(token)
        if isinstance(found, Response):
            return found
        sent, playbook = found
        now = self._clock.now()
        try:
            async with self._database.connect() as connection:
                known = await self._decisions(connection, sent)
                offer = _offer(sent, playbook, known)
                topics, subscribed, everything = _wanted(choice, sent.request.topic, playbook, known)
                if offer.required and not everything:
                    return page(pages.unsubscribe(offer, sent.request.locale), 409)
                decisions = [Decision(topic, subscribed, now, "unsubscribe link") for topic in topics]
                news = [decision for decision in decisions if not _stands(decision, known)]
            if news:
                entries = [self._decided(sent, decision, known) for decision in news]
                await self._log.append(EVENTS, partition_of(sent.request.customer, self._log.partitions), entries)
                async with self._database.connect() as connection:
                    await store.decide_consent(connection, _key(sent), news)
        except Exception as error:
            return self._later(error, sent)
        answer = pages.resubscribed if subscribed else pages.unsubscribed
        return page(answer(offer, everything, sent.request.locale))

    async def _message(self, token: str) -> tuple[Sent, Playbook | None] | Response:
        """The message of an unsubscribe link, and the playbook in force."""
        link = self._links.read(token)
        if not isinstance(link, Unsubscribe):
            return page(pages.nowhere(), 404)
        try:
            async with self._database.connect() as connection:
                sent = await page_store.sent_message(connection, link.message)
                playbook = await self._playbook(connection)
        except Exception as error:
            return self._later(error)
        if sent is None or not (sent.address or sent.request.address):
            return page(pages.nowhere(), 404)
        return sent, playbook

    async def _playbook(self, connection: Connection) -> Playbook | None:
        content_hash = await playbooks.in_force(connection)
        try:
            return await self._shelf.get(connection, content_hash) if content_hash else None
        except PlaybookUnusable:
            return None

    async def _decisions(self, connection: Connection, sent: Sent) -> dict[str, Decision]:
        address = _key(sent)
        return (await store.consent_of(connection, [address]))[address] if address else {}

    def _decided(self, sent: Sent, decision: Decision, known: dict[str, Decision]) -> Entry:
        """The event of a decision. Its id derives from the link, the minute and what was decided before: a click sent
        twice is one event, and taking back what was said within the minute is another."""
        name = events.TOPIC_SUBSCRIBED if decision.subscribed else events.TOPIC_UNSUBSCRIBED
        before = known.get(decision.topic)
        what = f"{name} {decision.topic} {before.decided_at.isoformat() if before else ''}"
        id = occurrence(Unsubscribe(sent.id), what, decision.decided_at)
        properties = {"topic": decision.topic, "source": decision.source}
        # A person's own word is nobody's consequence, so it is never dropped as a loop.
        return Entry(sent.request.customer, report(sent.request, id, name, decision.decided_at, properties, hops=0))

    def _reports(self, sent: Sent, event: bytes, why: str, now: datetime) -> tuple[Sent, list[Entry], str]:
        """What is to be reported of a click or an open. `why` a message of which it was not known counts as sent; where
        it is empty, it does not."""
        entries = [Entry(sent.request.customer, event)]
        resolving = why if sent.status == "unknown" else ""
        if resolving:
            assert sent.ended_at is not None
            told = arrived(sent.request, sent.due, sent.ended_at, now)
            entries.insert(0, Entry(sent.request.customer, told))
        return sent, entries, resolving

    def _begin(self, reporting: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(reporting)
        self._reporting.add(task)
        task.add_done_callback(self._reporting.discard)
        return task

    async def _report(self, sent: Sent, entries: Sequence[Entry], resolving: str) -> None:
        """Append a click or an open, again and again while the log is away; its id makes that harmless. Then the
        message itself may be told: where that fails, the next one does it."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _TRIES
        delay = 0.1
        while True:
            try:
                await self._log.append(EVENTS, partition_of(sent.request.customer, self._log.partitions), entries)
                if resolving:
                    async with self._database.connect() as connection:
                        await page_store.resolve(connection, sent.id, resolving)
                return
            except Exception as error:
                if not is_transient(error):
                    self._logger.error("click or open lost", exc_info=error)
                    return
                if loop.time() + delay > until:
                    self._logger.error("click or open lost", error=str(error))
                    return
            await asyncio.sleep(delay)
            delay = min(2 * delay, 5.0)

    def _later(self, error: Exception, sent: Sent | None = None) -> Response:
        """Nothing was acknowledged: the log or the database is away."""
        if not is_transient(error) and not isinstance(error, Unavailable):
            raise error
        self._logger.warning("page unavailable", error=str(error))
        return page(pages.later(sent.request.locale if sent else None), 503, {"Retry-After": "5"})


def _key(sent: Sent) -> str | None:
    """The form in which the address is kept that a message went to."""
    return normalise(sent.address or sent.request.address) if sent.request.channel == EMAIL else sent.address


def _wanted(
    choice: str, topic: str, playbook: Playbook | None, known: dict[str, Decision]
) -> tuple[list[str], bool, bool]:
    """The topics that a choice decides on, how, and whether it means all advertising.

    Undoing "everything" says yes to those topics only that would be wanted without it, so nobody is subscribed to what
    they never asked for.
    """
    if choice == "undo-topic":
        return [topic], True, False
    if choice == "everything":
        return [EVERY_TOPIC], False, True
    if choice == "undo-everything":
        before = {name: decision for name, decision in known.items() if name != EVERY_TOPIC}
        topics = playbook.topics.values() if playbook else ()
        wanted = [each.name for each in topics if each.kind == "promotional" and refusal(each, before) is None]
        return wanted, True, True
    return [topic], False, False


def _stands(decision: Decision, known: dict[str, Decision]) -> bool:
    """Whether the same was decided before, and nothing since that speaks against it."""
    own = known.get(decision.topic)
    if own is None or own.subscribed is not decision.subscribed:
        return False
    others = known.values() if decision.topic == EVERY_TOPIC else filter(None, [known.get(EVERY_TOPIC)])
    return all(other.subscribed is decision.subscribed or later(own, other) is own for other in others)


def _offer(sent: Sent, playbook: Playbook | None, known: dict[str, Decision]) -> pages.Offer:
    name = sent.request.topic
    topic = playbook.topics.get(name) if playbook else None
    if topic is None:
        # Its topic is gone, and the word about it is taken all the same.
        topic = Topic(name, name.replace("-", " "), "", "promotional", "opt_out")
    return pages.Offer(
        brand=playbook.brand.name if playbook else "us",
        topic=topic.title,
        description=topic.description,
        subscribed=refusal(topic, known) is None,
        required=topic.kind == "transactional",
    )


def page(html: str, status: int = 200, headers: dict[str, str] | None = None) -> HTMLResponse:
    return HTMLResponse(html, status, {**pages.HEADERS, **(headers or {})})


def _ascii(target: str) -> str:
    """A target as a header can carry it: what is outside ASCII percent-encoded, the host in its ASCII form."""
    if target.isascii():
        return target
    try:
        parts = urlsplit(target)
    except ValueError:
        # No address, as half a pair of brackets or a letter that reads like a slash: that is for the browser to say.
        return quote(target, safe=_KEPT)
    host = parts.netloc
    if not host.isascii():
        try:
            host = idna.encode(host, uts46=True).decode("ascii")
        except (idna.IDNAError, UnicodeError):
            host = quote(host, safe=":@")
    return urlunsplit(
        (parts.scheme, host, *(quote(part, safe=_KEPT) for part in parts[2:]))
    )  # fmt: skip
