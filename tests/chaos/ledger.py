"""The ledger: what went in, what came out, and what must be so. It knows nothing of the services.

What was posted and what was answered is written down by the shop, what arrived by the mail server. What must have
become of each customer is counted here by hand, for the playbook beside this file. The services' tables are only read,
at the end, to be held against it.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import blake2b
from itertools import pairwise
from typing import Any

import asyncpg
import msgspec

from tests.chaos import calls, visits
from tests.chaos.calls import Call, Cause
from tests.chaos.visits import CLOCKS_APART, Losses, Use, Visit

REMINDED_AFTER = 4.0
WARM_FOR = 12.0
"""Seconds here; minutes in the playbook."""
ASKED_FOR = 10.0
"""The same: how long an answer, or a click, is waited for."""
HANDED_OVER_WITHIN = 10.0
"""Seconds. A hand-over that began before an unsubscribe was acknowledged may reach DATA within 5 of when its process
learnt that it had begun; and a little, since the machine is busy."""
LEARNT_WITHIN = 5.0
"""Seconds more where something kept a process from learning it: it stood still, or PostgreSQL was silent."""

LAST_CODES = 10
"""So many codes the pool has that runs out."""

_PARTING_LINKS = ("https://chaos.example/back", "https://chaos.example/why")
_CODES = re.compile(r"code=(\S*) rare=(\S*)")
_SAID = re.compile(r"\b(\w+)=([0-9.]*)")
_EVENT = 3  # segmenter.history.kind of what was posted
_SOURCE = "shop"  # as the cluster's file of keys calls it
_LISTENING = ("watching", "ended")
_CHANNELS = {"email": "Email", "webhook": "Webhook", "sms": "SMS", "push": "Push Notification"}
_ENDS = ("sent", "skipped", "failed", "unknown")
_OUTCOMES = [f"{channel} {end.title()}" for channel in _CHANNELS.values() for end in _ENDS]
_USES = ("Email Link Clicked", "Email Opened")
_STOPPED = "Topic Unsubscribed"


@dataclass
class Posted:
    """An event, and when (UNIX time) it was first posted and was answered 200. Given up: nobody knows."""

    id: str
    customer: str
    name: str
    properties: Mapping[str, Any]
    begun: float
    answered: float | None = None
    turn: int = 0
    """Counts up; of one customer, the smaller was answered before the larger was posted."""


@dataclass
class Arrival:
    """A mail whose final dot the mail server has read. `answer` is what it then said; empty: nothing, or nonsense.
    `text` is the mail's own."""

    cause: Cause
    message: str
    """Its Message-ID."""
    address: str
    data_at: float
    text: str
    answer: str = ""

    @property
    def may_be_accepted(self) -> bool:
        return not self.answer or self.answer.startswith("2")


@dataclass
class Facts:
    """What the tables say at the end."""

    history: dict[str, list[str]]
    """By event id (of the shop's): whose history it is in, as often as it is."""
    outcomes: Counter[tuple[str, str]]
    """By message id and name of the outcome's event: how often it is in the history."""
    profiles: dict[str, tuple[str, frozenset[str]]]
    enrollments: dict[str, list[tuple[str, str, str]]]
    """By customer: journey, key, status."""
    messages: list[asyncpg.Record]
    causes: dict[str, Cause]
    """By message id."""
    dead: list[tuple[str, str, bytes]]
    """Code, message and body of each dead letter."""
    left_over: list[str]
    tasks: Counter[str] = field(default_factory=Counter)
    """By what their enrollment is about: how many there are."""
    codes: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Pool and enrollment of each code that was issued."""
    last_held: int = 0
    """Codes of the pool that runs out which partitions have claimed and not issued."""
    uses: Counter[Use] = field(default_factory=Counter)
    """What was told of links that were followed, and images that were fetched."""
    stopped: set[tuple[str, str]] = field(default_factory=set)
    """Customer and topic of each unsubscribe that was told of."""
    left_at: dict[str, datetime] = field(default_factory=dict)
    """By the event's id: where the road was when somebody left."""
    back_at: dict[str, datetime] = field(default_factory=dict)
    """By message: where it was when somebody first came back by a link of the parting word."""


@dataclass
class Verdict:
    violations: list[str]
    counts: Counter[str]

    def __bool__(self) -> bool:
        return not self.violations


@dataclass
class Ledger:
    posted: dict[str, Posted] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    """Ids of events that were named as bad in an answer 200."""
    reused: set[str] = field(default_factory=set)
    """Ids that were posted once more with another content."""
    arrivals: list[Arrival] = field(default_factory=list)
    unsubscribed: dict[tuple[str, str], float] = field(default_factory=dict)
    """By customer and topic: when it was acknowledged."""
    texts: dict[str, list[str]] = field(default_factory=dict)
    """What the mails of a message say, by its id; for the verdict."""
    calls_for: dict[Cause, list[Call]] = field(default_factory=dict)
    asked_to_stop: set[tuple[str, str]] = field(default_factory=set)
    """The same as `unsubscribed`, whether or not it was answered."""
    hurt: dict[int, str] = field(default_factory=dict)
    """Processes that may have left a mail unknown, and why."""
    deleted: set[str] = field(default_factory=set)
    """Ids of events that were deleted from the log on purpose."""
    calls: list[Call] = field(default_factory=list)
    visits: list[Visit] = field(default_factory=list)
    written_down: dict[str, float] = field(default_factory=dict)
    """By message: when it was seen that it is known to be sent."""
    losses: Losses = field(default_factory=Losses)

    def customers(self) -> dict[str, list[Posted]]:
        found: defaultdict[str, list[Posted]] = defaultdict(list)
        for event in self.posted.values():
            found[event.customer].append(event)
        return found

    # Is all over?

    async def unfinished(self, connection: asyncpg.Connection) -> list[str]:
        """What is still under way, a line each."""
        left = []
        accepted = [one.id for one in self.posted.values() if one.answered is not None and one.id not in self.deleted]
        missing = await connection.fetchval(
            "SELECT count(*) FROM unnest($1::text[]) AS a (id) WHERE NOT EXISTS"
            " (SELECT FROM segmenter.history h WHERE h.id = a.id) AND NOT EXISTS"
            " (SELECT FROM processing.dead_letters d WHERE position(convert_to(a.id, 'UTF8') IN d.body) > 0)",
            accepted,
        )
        if missing:
            left.append(f"{missing} accepted events are neither in the history nor in dead letters")
        for what, count in await connection.fetch(
            "SELECT 'messages ' || status, count(*) FROM mailer.messages"
            " WHERE status IN ('requested', 'held', 'sending') GROUP BY 1"
            " UNION ALL SELECT 'enrollments ' || status, count(*) FROM journeys.enrollments"
            " WHERE status <> ALL($1) GROUP BY 1"
            " UNION ALL SELECT 'outbox rows of ' || service, count(*) FROM processing.outbox GROUP BY 1",
            list(_LISTENING),
        ):
            left.append(f"{count} {what}")
        warm = await connection.fetch("SELECT state FROM segmenter.profiles")
        if count := sum("warm" in _segments(row["state"]) for row in warm):
            left.append(f"{count} customers are warm")
        if not left:
            asked = {row["id"] for row in await connection.fetch("SELECT id FROM mailer.messages")}
            told = await connection.fetch("SELECT body FROM segmenter.history WHERE name = ANY($1)", _OUTCOMES)
            if untold := asked - {_properties(row["body"])["message_id"] for row in told}:
                left.append(f"the outcomes of {len(untold)} messages are not in the history")
        return left

    async def reached(self, connection: asyncpg.Connection) -> dict[int, datetime]:
        """By partition, the time that the road has come to where it begins."""
        rows = await connection.fetch("SELECT partition, as_of FROM processing.partitions WHERE service = 'segmenter'")
        return {row["partition"]: row["as_of"] for row in rows if row["as_of"] is not None}

    async def behind(self, connection: asyncpg.Connection, reached: Mapping[int, datetime]) -> list[str]:
        """Which partitions have not heard of a later time than that: until then, what was said before it may be on the
        way to them, where no table shows it."""
        return [
            f"{row['service']}[{row['partition']}] is behind"
            for row in await connection.fetch("SELECT service, partition, as_of FROM processing.partitions")
            if row["partition"] in reached and (row["as_of"] is None or row["as_of"] <= reached[row["partition"]])
        ]

    async def read(self, connection: asyncpg.Connection, left_over: list[str]) -> Facts:
        """`left_over` is what was not over when nobody waited any longer; ticks go on, and are never over."""
        history: defaultdict[str, list[str]] = defaultdict(list)
        outcomes: Counter[tuple[str, str]] = Counter()
        uses: Counter[Use] = Counter()
        stopped: set[tuple[str, str]] = set()
        left_at: dict[str, datetime] = {}
        back_at: dict[str, datetime] = {}
        taken_at = dict(await connection.fetch("SELECT id, seen_at FROM segmenter.seen ORDER BY seen_at DESC"))
        for row in await connection.fetch(
            "SELECT id, source, customer, name, body FROM segmenter.history WHERE kind = $1", _EVENT
        ):
            at = taken_at.get(_named(row["source"], row["id"]))
            if row["name"] in _OUTCOMES:
                outcomes[_properties(row["body"])["message_id"], row["name"]] += 1
            elif row["name"] in _USES:
                said = _properties(row["body"])
                message, link = said["message_id"], said.get("link", "")
                uses[message, link, said["machine"]] += 1
                if at is not None and link in _PARTING_LINKS and not said["machine"]:
                    back_at[message] = min(at, back_at.get(message, at))
            elif row["source"] == _SOURCE:
                history[row["id"]].append(row["customer"])
                if at is not None and row["name"] == "Account Closed":
                    left_at[row["id"]] = at
            elif row["name"] == _STOPPED:
                stopped.add((row["customer"], _properties(row["body"])["topic"]))
        profiles = {
            row["key"]: (row["stage"], frozenset(_segments(row["state"])))
            for row in await connection.fetch("SELECT key, stage, state FROM segmenter.profiles")
        }
        keys: dict[str, str] = {}
        enrollments: defaultdict[str, list[tuple[str, str, str]]] = defaultdict(list)
        for row in await connection.fetch("SELECT id, customer, journey, key, status FROM journeys.enrollments"):
            keys[str(row["id"])] = row["key"]
            enrollments[row["customer"]].append((row["journey"], row["key"], row["status"]))
        messages = await connection.fetch("SELECT * FROM mailer.messages")
        causes = {
            row["id"]: (
                row["message"] if row["channel"] == "email" else f"{row['channel']}:{row['message']}",
                keys.get(msgspec.json.decode(row["request"])["enrollment"]) or row["customer"],
            )
            for row in messages
        }
        dead = await connection.fetch("SELECT code, message, body FROM processing.dead_letters")
        return Facts(
            history,
            outcomes,
            profiles,
            enrollments,
            messages,
            causes,
            [(row["code"], row["message"], row["body"]) for row in dead],
            left_over,
            Counter(row["key"] for row in await connection.fetch("SELECT key FROM journeys.tasks")),
            {
                row["code"]: (row["pool"], str(row["enrollment"]))
                for row in await connection.fetch("SELECT * FROM journeys.coupons WHERE issued_at IS NOT NULL")
            },
            await connection.fetchval(
                "SELECT count(*) FROM journeys.coupons WHERE pool = 'last' AND issued_at IS NULL"
            ),
            uses,
            stopped,
            left_at,
            back_at,
        )

    # The verdict

    def judge(self, facts: Facts) -> Verdict:
        self.texts = defaultdict(list)
        for arrival in self.arrivals:
            self.texts[arrival.message].append(arrival.text)
        self.calls_for = defaultdict(list)
        for call in self.calls:
            self.calls_for[call.cause].append(call)
        verdict = Verdict([f"not over: {line}" for line in facts.left_over], Counter())
        self._judge_events(facts, verdict)
        buried = self._judge_dead_letters(facts, verdict)
        self._judge_customers(facts, verdict, buried)
        self._judge_messages(facts, verdict)
        self._judge_calls(facts, verdict)
        self._judge_visits(facts, verdict)
        self._judge_partings(facts, verdict)
        return verdict

    def _judge_events(self, facts: Facts, verdict: Verdict) -> None:
        """Each accepted event is in the state exactly once, or in dead letters; each other one at most once."""
        dead = b"\n".join(body for _, _, body in facts.dead)
        for event in self.posted.values():
            taken = facts.history.get(event.id, [])
            verdict.counts["events accepted" if event.answered else "events not answered"] += 1
            if len(taken) > 1:
                verdict.violations.append(f"event {event.id} is in the history {len(taken)} times")
            if taken and set(taken) != {event.customer}:
                verdict.violations.append(f"event {event.id} of {event.customer} is in the history of {taken}")
            if taken:
                verdict.counts["events in the state"] += 1
            elif event.id in self.deleted:
                verdict.counts["events deleted from the log"] += 1
            elif event.answered and event.id.encode() not in dead:
                verdict.violations.append(
                    f"event {event.id} was accepted and is lost ({event.name} of {event.customer})"
                )
        for id in facts.history.keys() - self.posted.keys():
            verdict.violations.append(f"event {id} is in the history, and nobody posted it")
        for id in self.refused:
            verdict.counts["events refused by name"] += 1
            if id.encode() not in dead:
                verdict.violations.append(f"event {id} was refused by name and is not in dead letters")

    def _judge_dead_letters(self, facts: Facts, verdict: Verdict) -> set[str]:
        """Nothing is set aside without a reason that we gave. Returns the accepted events that were."""
        buried = set()
        for code, message, body in facts.dead:
            verdict.counts[f"dead letters: {code}"] += 1
            if any(id.encode() in body for id in self.refused):
                continue
            if code == "conflicting_duplicate" and any(id.encode() in body for id in self.reused):
                continue
            if code == "poison" and "ended the process" in message:
                # It was at hand each time that something else killed its owner: five times in a row.
                buried |= {id for id in self.posted if id.encode() in body}
                continue
            verdict.violations.append(f"dead letter {code}: {message}: {body[:900]!r}")
        return buried

    def _judge_customers(self, facts: Facts, verdict: Verdict, buried: set[str]) -> None:
        messages: defaultdict[str, list[asyncpg.Record]] = defaultdict(list)
        for row in facts.messages:
            messages[row["customer"]].append(row)
        for customer, events in self.customers().items():
            verdict.counts["customers"] += 1
            life = _Life(self, customer, events, facts, {id for id in buried if self.posted[id].customer == customer})
            verdict.violations += life.wrong(messages.pop(customer, []))
        for customer in messages:
            verdict.violations.append(f"{customer} has messages, and has done nothing")
        for customer in facts.profiles.keys() - self.customers().keys():
            verdict.violations.append(f"{customer} has a profile, and has done nothing")

    def _judge_messages(self, facts: Facts, verdict: Verdict) -> None:
        """Each cause has one message, and each message one end, which is told once."""
        causes: Counter[Cause] = Counter()
        arrived: defaultdict[str, list[Arrival]] = defaultdict(list)
        for arrival in self.arrivals:
            arrived[arrival.message].append(arrival)
            verdict.counts["mails arrived"] += 1
        for row in facts.messages:
            id, status, channel = row["id"], row["status"], row["channel"]
            cause = facts.causes[id]
            # A customer may cool more than once: each time is a cause of its own.
            enrollment = msgspec.json.decode(row["request"])["enrollment"]
            causes[("cooled", enrollment) if row["message"] == "cooled" else cause] += 1
            what = "messages" if channel == "email" else f"{channel} calls"
            verdict.counts[f"{what} {status}" + (f" ({row['reason']})" if status in ("unknown", "failed") else "")] += 1
            told = {end: facts.outcomes[id, f"{_CHANNELS[channel]} {end.title()}"] for end in _ENDS}
            if channel == "email":
                verdict.violations += self._wrong_mail(row, cause, arrived.pop(id, []), told)
            elif told != {end: int(end == status) for end in _ENDS}:
                verdict.violations.append(f"{id} {cause} is {status}, and what was told of it is {told}")
        for cause, count in causes.items():
            if count > 1:
                verdict.violations.append(f"{cause} has {count} messages")
        for message, about in arrived.items():
            verdict.violations.append(f"mail {message} arrived, and nobody asked for it: {about}")

    def _wrong_mail(
        self, row: asyncpg.Record, cause: Cause, about: Sequence[Arrival], told: Mapping[str, int]
    ) -> Iterator[str]:
        """It was not handed over twice where the mail server may have accepted it; what is unknown says why."""
        status, name = row["status"], f"message {row['id']} {cause}"
        accepted = [one for one in about if one.may_be_accepted]
        # Who follows its links, or looks at it, has the mail, also where that was not known. Who tells of it is heard
        # first, and may then be killed.
        resolved = bool(told["unknown"] and told["sent"] and self._was_used(row["id"]))
        if len(accepted) > 1:
            yield f"{name} was handed over {len(accepted)} times: {about}"
        if status == "sent" and [one.answer[:1] for one in accepted] != ["2"] and not (resolved and accepted):
            yield f"{name} is sent, and the mail server knows only {about}"
        if status in ("skipped", "failed") and accepted:
            yield f"{name} is {status} ({row['reason']}), and the mail server has {about}"
        if status == "unknown" and not self._explained(row, accepted):
            yield f"{name} is unknown ({row['reason']}) without a cause: {row['taken']}, {about}"
        for one in about:
            if one.cause != cause:
                yield f"{name} arrived as {one.cause}"
            at = self.unsubscribed.get((row["customer"], row["topic"]))
            if at is not None and self._is_late(one.data_at, at):
                yield f"{name} was handed over {one.data_at - at:.1f} s after an unsubscribe"
        ends = {"sent", "unknown"} if resolved else {status}
        if told != {end: int(end in ends) for end in _ENDS}:
            yield f"{name} is {status}, and what was told of it is {told}"

    def _is_late(self, data_at: float, unsubscribed: float) -> bool:
        hindered = self.losses.hindered(unsubscribed, data_at)
        return data_at > unsubscribed + HANDED_OVER_WITHIN + (LEARNT_WITHIN if hindered else 0.0)

    def _was_used(self, message: str) -> bool:
        return any(visit.message == message for visit in self.visits)

    def _judge_calls(self, facts: Facts, verdict: Verdict) -> None:
        rows = [row for row in facts.messages if row["channel"] != "email"]
        verdict.violations += calls.wrong(self.calls, rows, facts.causes)
        verdict.counts += calls.counted(self.calls)
        reachable = {one.customer for one in self.posted.values() if one.name == "identify" and one.id in facts.history}
        # Who declines what a journey is about leaves it, and what it had still to say goes with it.
        declining = {customer for customer, _ in self.asked_to_stop}
        for row in rows:
            if row["status"] == "skipped" and row["customer"] in reachable - declining:
                verdict.violations.append(f"{facts.causes[row['id']]} was skipped ({row['reason']}), and wanted")

    def _judge_visits(self, facts: Facts, verdict: Verdict) -> None:
        """What people did counts, and nothing else; and nobody was unsubscribed who did not ask."""
        doubtful = frozenset(id for (id, end), count in facts.outcomes.items() if count and end == "Email Unknown")
        verdict.violations += visits.wrong(self.visits, facts.uses, self.written_down, doubtful, self.losses)
        verdict.counts["links and images visited"] = len(self.visits)
        verdict.counts["visits of people"] = sum(n for (_, _, machine), n in facts.uses.items() if not machine)
        verdict.counts["visits of machines"] = sum(n for (_, _, machine), n in facts.uses.items() if machine)
        certain = visits.certain(self.visits, self.written_down, self.losses)
        verdict.counts["visits that had to count"] = sum(1 for _ in certain)
        for customer, topic in facts.stopped - self.asked_to_stop:
            verdict.violations.append(f"{customer} is unsubscribed from {topic}, and has not asked for it")
        for customer, topic in self.unsubscribed.keys() - facts.stopped:
            verdict.violations.append(f"{customer} unsubscribed from {topic}, and nobody was told")

    def _judge_partings(self, facts: Facts, verdict: Verdict) -> None:
        """Whoever leaves is called once, and has a code that nobody else has."""
        leaving = [
            event.properties["closing"]
            for event in self.posted.values()
            if event.name == "Account Closed" and event.id in facts.history
        ]
        if facts.tasks != Counter(leaving):
            wrong = {key for key in {*facts.tasks, *leaving} if facts.tasks[key] != leaving.count(key)}
            verdict.violations.append(f"not called once: {sorted(wrong)}")
        pools = Counter(pool for pool, _ in facts.codes.values())
        verdict.counts["codes issued"] = pools.total()
        verdict.counts["tasks"] = facts.tasks.total()
        # A partition whose claim was cut off, and asked for once more, holds a code for whoever leaves there next.
        least, most = min(len(leaving), LAST_CODES - facts.last_held), min(len(leaving), LAST_CODES)
        if pools["bye"] != len(leaving) or not least <= pools["last"] <= most:
            held = f"{facts.last_held} of the last are held"
            verdict.violations.append(f"{len(leaving)} customers left, and were issued {dict(pools)}; {held}")
        holders: defaultdict[str, set[Cause]] = defaultdict(set)
        for arrival in self.arrivals:
            if arrival.cause[0] != "parting":
                continue
            said = _CODES.search(arrival.text)
            code, rare = said.groups() if said is not None else ("", "")
            if code not in facts.codes or (rare and rare not in facts.codes):
                verdict.violations.append(f"{arrival.cause} tells of {code!r} and {rare!r}, which nobody issued")
            for one in filter(None, (code, rare)):
                holders[one].add(arrival.cause)
        for code, causes in holders.items():
            if len(causes) > 1:
                verdict.violations.append(f"{code} went to {sorted(causes)}")

    def _explained(self, row: asyncpg.Record, accepted: Sequence[Arrival]) -> bool:
        if row["reason"] != "interrupted":
            return True  # it names what the mail server did
        pid = int(row["taken"].partition("-")[0])
        return pid in self.hurt


class _Life:
    """What must have become of one customer."""

    def __init__(self, ledger: Ledger, customer: str, events: Sequence[Posted], facts: Facts, buried: set[str]) -> None:
        self.ledger, self.customer, self.facts = ledger, customer, facts
        self.lived = [event for event in events if event.id in facts.history]
        lost = self.ledger.deleted | buried
        self.certain = all(event.answered is not None and event.id not in lost for event in events)
        """Whether the state before each event is known: everything was answered, and came in turn."""
        self.events = events

    def _of(self, name: str) -> list[Posted]:
        return [event for event in self.lived if event.name == name]

    def wrong(self, messages: Sequence[asyncpg.Record]) -> list[str]:
        found = [*self._wrong_profile(), *self._wrong_enrollments(), *self._wrong_messages(messages)]
        return [f"{self.customer}: {line}" for line in found]

    def _wrong_profile(self) -> Iterable[str]:
        if not self.lived:
            return
        is_now = self.facts.profiles.get(self.customer)
        orders = self._of("Order Completed")
        stage = (
            "delight"
            if len(orders) >= 3
            else "retain"
            if orders
            else "convert"
            if self._of("Product Added")
            else "attract"
        )
        segments = set()
        if _total(orders) >= 100:
            segments.add("big")
        if len(self._of("Product Viewed")) >= 3:
            segments.add("lookers")
        countries = [event.properties["country"] for event in self._of("identify")]
        if countries and countries[-1] in ("NO", "SE"):
            segments.add("nordic")
        if is_now != (stage, frozenset(segments)) and (self.certain or is_now is None or is_now[0] != stage):
            yield f"must be {stage} in {sorted(segments)}, and is {is_now}"

    def _wrong_enrollments(self) -> Iterable[str]:
        found = Counter((journey, key) for journey, key, _ in self.facts.enrollments.get(self.customer, []))
        wanted = Counter(("receipt", event.properties["order_id"]) for event in self._of("Order Completed"))
        wanted += Counter(("basket", event.properties["cart_id"]) for event in self._of("Basket Left"))
        wanted += Counter(("statement", event.properties["closing"]) for event in self._of("Account Closed"))
        for journey in ("parting", "farewell", "asked"):
            wanted += Counter((journey, event.properties["closing"]) for event in self._of("Account Closed"))
        cooled = found.pop(("cooled", ""), 0)
        for entry in wanted.keys() | found.keys():
            if found[entry] != wanted[entry]:
                yield f"must be in {entry} {wanted[entry]} times, and is {found[entry]} times"
        least, most = self._coolings()
        if not least <= cooled <= most:
            yield f"must have cooled {least} to {most} times, and has {cooled} times"

    def _coolings(self) -> tuple[int, int]:
        """How often 12 minutes passed without an order after one: at least, and at most."""
        orders = self._of("Order Completed")
        if not orders:
            return 0, 0
        # Nobody is warmed by an order that took longer to get through than one stays warm; and whoever is still in the
        # journey for the last time does not enter it again.
        least = any(_seconds(event) < WARM_FOR - 2 * CLOCKS_APART for event in orders if event.answered is not None)
        if any(event.answered is None for event in orders):
            return int(least), len(orders)
        gaps = ((one.begun, two.begun + _seconds(two)) for one, two in pairwise(orders))
        return int(least), 1 + sum(end - begun >= WARM_FOR - 2 * CLOCKS_APART for begun, end in gaps)

    def _wrong_messages(self, messages: Sequence[asyncpg.Record]) -> Iterable[str]:
        by_cause = {self.facts.causes[row["id"]]: row for row in messages}
        for event in self.lived:
            if event.name == "Order Completed":
                yield from self._wrong_account(by_cause, "receipt", event.properties["order_id"], event)
            elif event.name == "Account Closed":
                yield from self._wrong_account(by_cause, "statement", event.properties["closing"], event)
                yield from self._wrong_farewell(by_cause, event)
            elif event.name == "Basket Left":
                yield from self._wrong_reminders(by_cause, event)

    def _wrong_account(
        self, messages: Mapping[Cause, asyncpg.Record], name: str, about: str, event: Posted
    ) -> Iterable[str]:
        """There is a message, and what it says of the past, if it arrived, is what had happened at this very event."""
        row = messages.get((name, about))
        if row is None:
            yield f"there is no {name} for {about}"
            return
        if not self.certain:
            return
        past = [one for one in self.events if one.turn <= event.turn]
        orders = [one for one in past if one.name == "Order Completed"]
        truth = {"orders": len(orders), "total": _total(orders)}
        if name == "statement":
            truth["views"] = sum(one.name == "Product Viewed" for one in past)
            truth["added"] = sum(one.name == "Product Added" for one in past)
        for text in self.ledger.texts.get(row["id"], ()):
            said = {key: float(value or 0) for key, value in _SAID.findall(text)}
            if said != truth:
                yield f"the {name} for {about} must say {truth}, and says {said}"

    def _wrong_farewell(self, messages: Mapping[Cause, asyncpg.Record], left: Posted) -> Iterable[str]:
        """Whoever leaves is told so by all ways; the shop is called, once more where they say why, or come back."""
        closing = left.properties["closing"]
        wanted = {"webhook:tell"}
        if (self.customer, "notes") not in self.ledger.asked_to_stop:
            wanted |= {"parting", "sms:farewell", "push:farewell"}
        for name in sorted(wanted):
            if (name, closing) not in messages:
                yield f"there is no {name} for {closing}"
        for call in self.ledger.calls_for.get(("webhook:tell", closing), ()):
            said = msgspec.json.decode(call.body)["data"]
            past = [one for one in self.events if one.turn <= left.turn and one.name == "Order Completed"]
            truth = {"orders": len(past), "total": _total(past)}
            if self.certain and {name: float(value or 0) for name, value in said.items()} != truth:
                yield f"the call for {closing} must say {truth}, and says {said}"
        answers = [event for event in self.events if event.name == "Survey Answered"]
        answered = messages.get(("webhook:answered", closing))
        if answered is not None:
            scores = [event.properties["score"] for event in answers]
            for call in self.ledger.calls_for.get(("webhook:answered", closing), ()):
                if msgspec.json.decode(call.body)["data"]["score"] not in scores:
                    yield f"{closing} has said {scores}, and the call says {call.body!r}"
        if left.answered is None or any(one.answered is None or one.id in self.ledger.deleted for one in answers):
            return
        in_time = left.begun + ASKED_FOR - 2 * CLOCKS_APART
        if answered is None and self.certain and any(one.answered < in_time for one in answers if one.answered):
            yield f"{closing} was answered in time, and nobody is told"
        too_late = left.answered + ASKED_FOR + 2 * CLOCKS_APART
        if answered is not None and all(one.begun > too_late for one in answers):
            yield f"{closing} was not answered in time, and somebody is told"
        yield from self._wrong_return(messages, left)

    def _wrong_return(self, messages: Mapping[Cause, asyncpg.Record], left: Posted) -> Iterable[str]:
        """Whoever comes back by a link of the parting word is told of, and nobody else is."""
        closing = left.properties["closing"]
        parting, clicked = messages.get(("parting", closing)), messages.get(("webhook:clicked", closing))
        people = 0 if parting is None else sum(self.facts.uses[parting["id"], link, False] for link in _PARTING_LINKS)
        if clicked is not None and not people:
            yield f"nobody came back by the parting word for {closing}, and somebody is told"
        left_at = self.facts.left_at.get(left.id)
        back_at = None if parting is None else self.facts.back_at.get(parting["id"])
        in_time = left_at and back_at and back_at < left_at + timedelta(minutes=ASKED_FOR)
        if clicked is None and in_time and (self.customer, "notes") not in self.ledger.asked_to_stop:
            yield f"{closing} left at {left_at} and came back at {back_at}, and nobody is told"

    def _wrong_reminders(self, messages: Mapping[Cause, asyncpg.Record], left: Posted) -> Iterable[str]:
        """Whoever ordered before the reminder was due has none; whoever did not, has one."""
        basket = left.properties["cart_id"]
        reminder, last = messages.get(("reminder", basket)), messages.get(("last-word", basket))
        orders = [
            event
            for event in self.events
            if event.name == "Order Completed" and event.properties.get("cart_id") == basket
        ]
        if left.answered is None or any(event.answered is None or event.id in self.ledger.deleted for event in orders):
            return
        if (self.customer, "carts") in self.ledger.asked_to_stop:
            return
        if any(event.answered < left.begun + REMINDED_AFTER - 2 * CLOCKS_APART for event in orders if event.answered):
            if reminder is not None:
                yield f"{basket} was ordered in time, and there is a reminder"
        elif all(event.begun > left.answered + REMINDED_AFTER + 2 * CLOCKS_APART for event in orders):
            if reminder is None:
                yield f"{basket} was not ordered in time, and there is no reminder"
            elif not orders and last is None:
                yield f"{basket} was never ordered, and there is no last word"
        if last is not None and reminder is None:
            yield f"{basket} has a last word, and no reminder"


def _named(source: str, id: str) -> bytes:
    """An event as the table of those that were taken has it."""
    return blake2b(f"{source}\0{id}".encode(), digest_size=16).digest()


def _seconds(event: Posted) -> float:
    """How long it took until it was answered."""
    assert event.answered is not None
    return event.answered - event.begun


def _total(orders: Iterable[Posted]) -> float:
    return float(sum(event.properties["total"] for event in orders))


def _properties(body: bytes) -> Mapping[str, Any]:
    """Of an event as the history keeps it."""
    properties: Mapping[str, Any] = msgspec.json.decode(msgspec.msgpack.decode(body)[6])
    return properties


def _segments(state: bytes) -> Sequence[str]:
    segments: Sequence[str] = msgspec.msgpack.decode(state)[6]
    return segments
