"""What must hold after every history, whatever happened: judged by what went in, what came out, and what is recorded.

Nothing here knows how the services work. The numbers are those of the invariants in the design.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import zip_longest
from typing import Any

import msgspec

from services.segmenter.store import unpack_profile
from shared.contracts import customers, messages
from shared.contracts.events import (
    EMAIL_LINK_CLICKED,
    EMAIL_OPENED,
    JOURNEYS_SOURCE,
    MAILER_SOURCE,
    TASK_OPENED,
    Activation,
    CutOffs,
    Event,
    EventRecord,
    Refused,
)
from shared.contracts.streams import STREAMS
from shared.log.port import Record
from tests.simulation.history import RANKING, SOURCE
from tests.simulation.mailing import INTERRUPTED, READ, noted
from tests.simulation.playbooks import variants
from tests.simulation.replay import taken
from tests.simulation.world import World

_event = msgspec.json.Decoder(EventRecord).decode
_customer = msgspec.json.Decoder(customers.CustomerRecord).decode
_message = msgspec.json.Decoder(messages.MessageRecord).decode
_WINDOW = timedelta(hours=24)
_ENDED = {
    f"{kind} {status.title()}": status
    for kind in ("Email", "Webhook", "SMS", "Push Notification")
    for status in ("sent", "skipped", "failed", "unknown")
}
_CODE = re.compile(r"\b(?:GIFT|RARE)-[A-Z0-9]{8}\b")
_OF_ITSELF = {"expired", "retries_ran_out", "gone", "paused", "no_playbook", "goal"}
"""Why nobody may have taken a call: nothing that somebody has not seen to."""


def breaches(world: World) -> list[str]:
    """What was broken, a line each."""
    found: list[str] = []
    laws = (_nothing_unexpected, _each_event_once, _in_order, _one_hand_over, _silence, _all_ends, _each_order)
    for law in (*laws, _fenced_once, _all_published, _wanted, _calls, _codes, _tasks, _nights):
        found += [f"{law.__name__.strip('_').replace('_', ' ')}: {line}" for line in law(world)]
    return found


def read(world: World, stream: str) -> list[list[Record]]:
    """What a reader takes of each partition: the next of each source, and nothing twice."""
    return [taken(world.broker.records(stream, partition)) for partition in range(world.history.partitions)]


def counted(lane: list[Record], told: list[Record]) -> list[tuple[str, str]]:
    """Source and id of the events that count, in order: shops retry, so the same again within a day does not. The day
    is one of the road, on which ticks move on, too."""
    said = [_customer(record.value) for record in told]
    ticks = [one for one in reversed(said) if isinstance(one, customers.Tick)]
    road = datetime.min.replace(tzinfo=UTC)
    last: dict[tuple[str, str], datetime] = {}
    found = []
    for record in lane:
        message = _decoded(record)
        while ticks and ticks[-1].after <= record.offset:
            road = max(road, ticks.pop().as_of)
        road = max(road, message.received_at)
        if isinstance(message, Event):
            name = message.source, message.id
            if name not in last or last[name] <= road - _WINDOW:
                last[name] = road
                found.append(name)
    return found


def _nothing_unexpected(world: World) -> Iterator[str]:
    yield from world.lost
    for name, living in world.living.items():
        if living.worker is not None:
            for partition in living.worker.owned:
                lane = living.worker.lane(partition)
                if lane is not None and lane.halted:
                    yield f"{name}[{partition}] stands still: {lane.halted}"


def _fenced_once(world: World) -> Iterator[str]:
    """A fenced transaction is over when it has been committed: said once more, it changes nothing."""
    yield from world.sessions.let_through


def _each_event_once(world: World) -> Iterator[str]:
    """1. Every event accepted with 200 is in the state exactly once, or de-duplicated, or in dead letters."""
    held: Counter[tuple[str, str]] = Counter()
    for source, id in world.query("SELECT source, id FROM segmenter.history WHERE kind = 3"):
        held[source, id] += 1
    letters = world.query("SELECT service, stream, code, message, body FROM processing.dead_letters")
    aside: Counter[str] = Counter()
    for service, stream, code, text, body in letters:
        if service != "segmenter" or code not in ("missing_id", "missing_user"):
            yield f"a dead letter of {service} ({stream}): {code}, {text}"
        aside[msgspec.json.decode(body)["messageId"]] += 1
    lanes = zip(read(world, "events"), read(world, "customers"), strict=True)
    once = Counter(name for lane, told in lanes for name in counted(lane, told))
    for name in held.keys() | once.keys():
        if held[name] != once[name]:
            yield f"{name} is to count {once[name]} times, and is {held[name]} times in the state"
    for id, call in world.acknowledged.items():
        if not (once[SOURCE, id] if "userId" in call else aside[id]):
            yield f"{id} was accepted, and is nowhere"
    for source, id in held:
        if source == SOURCE and id not in world.posted:
            yield f"{id} was never posted"
    [[processed, dropped]] = world.query(
        "SELECT coalesce(sum(processed), 0), coalesce(sum(deduplicated), 0) FROM segmenter.counters"
    )
    came = sum(isinstance(_decoded(record), Event) for lane in read(world, "events") for record in lane)
    if (processed, dropped) != (sum(held.values()), came - sum(held.values())):
        yield f"{came} events are counted as {processed} and {dropped} again, and {sum(held.values())} are in the state"


def _in_order(world: World) -> Iterator[str]:
    """3. Per customer, effects happen in the order of the log; and the road never goes back."""
    for partition, (went_in, came_out) in enumerate(zip(read(world, "events"), read(world, "customers"), strict=True)):
        told = []
        road = datetime.min.replace(tzinfo=UTC)
        for record in came_out:
            said = _customer(record.value)
            if said.as_of < road:
                yield f"customers[{partition}] goes back from {road} to {said.as_of}"
            road = said.as_of
            if isinstance(said, customers.CustomerUpdated) and said.event is not None and not said.derived:
                told.append((said.event.source, said.event.id))
        for place, (one, other) in enumerate(zip_longest(counted(went_in, came_out), told)):
            if one != other:
                yield f"events[{partition}]: number {place} to count is {one}, and {other} came out"
                break
    for partition, asked in enumerate(read(world, "messages")):
        times = [_message(record.value).as_of for record in asked]
        if times != sorted(times):
            yield f"messages[{partition}] goes back"


def _one_hand_over(world: World) -> Iterator[str]:
    """2. For one cause there is at most one hand-over that a mail server could have accepted. Each request ends."""
    reported: defaultdict[str, Counter[str]] = defaultdict(Counter)
    told = set()
    used: set[str] = set()
    for record in (r for lane in read(world, "events") for r in lane):
        event = _decoded(record)
        if isinstance(event, Event) and event.source == MAILER_SOURCE and event.name in _ENDED:
            # Said again under its own id, it counts once.
            if event.id not in told:
                reported[msgspec.json.decode(event.properties)["message_id"]][_ENDED[event.name]] += 1
            told.add(event.id)
        elif isinstance(event, Event) and event.name in (EMAIL_LINK_CLICKED, EMAIL_OPENED):
            used.add(msgspec.json.decode(event.properties)["message_id"])
    asked = set()
    for record in (r for lane in read(world, "messages") for r in lane):
        message = _message(record.value)
        if isinstance(message, messages.MessageRequested):
            asked.add(message.id)
    rows = {id: more for id, *more in world.query("SELECT id, status, channel FROM mailer.messages")}
    if rows.keys() != asked:
        yield f"asked for and not there: {asked - rows.keys()}; there and not asked for: {rows.keys() - asked}"
    for id, (status, channel) in rows.items():
        accepted = world.office.accepted[id]
        may = {"sent": (1,), "unknown": (0, 1)}.get(status, (0,)) if channel == "email" else (0,)
        if accepted not in may:
            yield f"{id} is {status}, and the mail server accepted it {accepted} times"
        # Who clicks or looks has the mail, even where it was not known to have arrived.
        known_late = Counter(["unknown"] if status == "sent" and id in used else ())
        if reported[id] - known_late != Counter([status]):
            yield f"{id} is {status}, and reported as {dict(reported[id]) or 'nothing'}"
    for id in world.office.accepted.keys() - rows.keys():
        yield f"{id} was handed over, and nobody knows of it"
    for [id] in world.query(INTERRUPTED):
        yield f"{id} is unknown, though whoever handed it over knows"


def _silence(world: World) -> Iterator[str]:
    """5. After an unsubscribe was acknowledged, no hand-over of that topic to that address begins."""
    yield from world.office.breaches


def _wanted(world: World) -> Iterator[str]:
    """Nothing goes to whom it is not wanted: the latest word on a topic holds, of the customer or about the address,
    "no" where two are of one moment, and the topic says what silence means. And nothing goes to where nobody is."""
    lanes = read(world, "messages")
    words: defaultdict[tuple[str, str], list[tuple[datetime, bool]]] = defaultdict(list)
    nobody = set()
    for _, what, was, said in noted(world.query(READ)):
        if what == "taken":
            lane = lanes[said["partition"]]
            while lane and lane[0].offset < said["next_offset"]:
                message = _message(lane.pop(0).value)
                for one in message.decisions if isinstance(message, messages.ConsentChanged) else ():
                    words[message.customer, one.topic].append((one.decided_at, not one.subscribed))
        elif what == "consent":
            refused = not said["subscribed"]
            words[said["address"], said["topic"]].append((datetime.fromisoformat(said["decided_at"]), refused))
        elif what == "suppressed":
            nobody.add(said["address"])
        elif said["status"] == "sending" != was and said["address"]:
            topic = variants()[0].topics[said["topic"]]
            if said["address"] in nobody:
                yield f"{said['id']} is handed over to {said['address']}, where nobody is"
            about = (topic.name, "*") if topic.kind == "promotional" else (topic.name,)
            heard = [word for who in (said["customer"], said["address"]) for of in about for word in words[who, of]]
            if topic.kind != "transactional" and max(heard, default=(None, topic.default == "opt_in"))[1]:
                yield f"{said['id']} ({topic.name}) is handed over to {said['address']}, who does not want it"


def _all_published(world: World) -> Iterator[str]:
    """What was committed is in the log: as much as whoever wrote it has given out."""
    there: Counter[tuple[str, int, str, int]] = Counter()
    for stream in STREAMS:
        for partition in range(world.history.partitions):
            for origin in (record.origin for record in world.broker.records(stream, partition)):
                if origin is not None:
                    source = origin.service, origin.partition, stream, partition
                    there[source] = max(there[source], origin.seq)
    for service, partition, packed in world.query("SELECT service, partition, out_seqs FROM processing.partitions"):
        for destination, last in (msgspec.msgpack.decode(packed) if packed else {}).items():
            stream, _, number = destination.rpartition("/")
            if (found := there[service, partition, stream, int(number)]) != last:
                yield f"{service}[{partition}] has given out {last} to {destination}, and {found} are there"


def _all_ends(world: World) -> Iterator[str]:
    """Nobody is left waiting for what has long been over."""
    paused = world.applied[-1].variant == 2 or world.applied[-1].paused
    for journey, status, step, customer in world.query(
        "SELECT journey, status, step, customer FROM journeys.enrollments WHERE status <> 'ended'"
    ):
        if not (status == "parked" and paused and journey == "cart"):
            yield f"{customer} is {status} in {journey} at {step}"


def _each_order(world: World) -> Iterator[str]:
    """Each order that was taken is answered by one receipt and one word of thanks, and by no reminder after it."""
    orders: dict[str, tuple[str, datetime]] = {}
    fresh = set()
    declined = set()
    asked: Counter[tuple[str, str]] = Counter()
    requests: list[messages.MessageRequested] = []
    touched: defaultdict[tuple[str, str], list[datetime]] = defaultdict(list)
    for said in _under_a_playbook(world):
        assert said.event is not None
        properties = msgspec.json.decode(said.event.properties)
        if said.event.name == "Order Completed":
            orders[properties["order_id"]] = said.customer.key, said.as_of
            if said.as_of - said.event.occurred_at <= timedelta(days=1):
                fresh.add(properties["order_id"])
        elif said.event.name == "Topic Unsubscribed":
            declined.add((said.customer.key, properties["topic"]))
        elif said.event.name == "Cart Updated":
            touched[said.customer.key, properties["cart_id"]].append(said.as_of)
    for record in (r for lane in read(world, "messages") for r in lane):
        message = _message(record.value)
        if isinstance(message, messages.MessageRequested):
            requests.append(message)
            asked[message.journey, str(message.data["key"])] += 1
    for order, (customer, at) in orders.items():
        expected = 1 if order in fresh else 0
        for journey in ("receipt", "thanks"):
            may_stop = (customer, journey) in declined  # who declines what a journey is about leaves it
            if asked[journey, order] != expected and not (may_stop and not asked[journey, order]):
                yield f"{order} of {at}: {asked[journey, order]} messages of {journey}, not {expected}"
    for message in requests:
        if message.message != "reminder":
            continue
        before = [at for at in touched[message.customer, str(message.data["key"])] if at < message.due]
        bought = [at for customer, at in orders.values() if customer == message.customer]
        if any(max(before) < at < message.due for at in bought):
            yield f"{message.customer} was reminded of a cart at {message.due}, and had bought since {max(before)}"


def _calls(world: World) -> Iterator[str]:
    """Who is called for a cause is called under one id, however often; at least once where the call is said to have
    been taken. Text messages and notifications are calls of their gateways."""
    rows = world.query(
        "SELECT id, channel, status, reason, journey, message FROM mailer.messages WHERE channel <> 'email'"
    )
    ids = {id for id, *_ in rows}
    for cause, names in world.office.called.items():
        if len(names) > 1:
            yield f"{cause} was called under {sorted(names)}"
        if names - ids:
            yield f"{cause} was called, and nobody knows of {sorted(names - ids)}"
    for id, channel, status, reason, journey, message in rows:
        took = world.office.took[id]
        if status == "sent" and not took:
            yield f"{id} of {journey} is sent ({channel}), and nobody took it"
        if status == "unknown":
            yield f"{id} of {journey} is unknown ({channel}); whoever takes calls knows them by their ids"
        if channel == "webhook" and status != "sent" and reason not in _OF_ITSELF:
            yield f"{message} of {journey} is {status} for {reason}, and was to be called"


def _codes(world: World) -> Iterator[str]:
    """One code for each enrollment and step, and never one twice; none too many, and none kept back."""
    limit = max(3 if applied.variant == 5 else 2 for applied in world.applied)
    held: defaultdict[str, set[str]] = defaultdict(set)
    got: defaultdict[str, set[str]] = defaultdict(set)
    announced: Counter[str] = Counter()
    without = 0
    for record in (r for lane in read(world, "messages") for r in lane):
        message = _message(record.value)
        if not isinstance(message, messages.MessageRequested):
            continue
        for code in set(_CODE.findall(record.value.decode())):
            held[code].add(message.enrollment)
            got[message.enrollment].add(code)
            announced[code] += bool(message.announces)
        if message.message in ("gift", "voucher") and message.data["with"]["code"] is None:
            without += 1
            if message.message == "gift":
                yield f"{message.enrollment} got no code of a pool without an end"
    for code, enrollments in held.items():
        if len(enrollments) > 1:
            yield f"{code} went to {sorted(enrollments)}"
    for enrollment, codes in got.items():
        if len(codes) > 1:
            yield f"{enrollment} has {sorted(codes)}"
    issued = world.query("SELECT pool, code, enrollment::text FROM journeys.coupons WHERE issued_at IS NOT NULL")
    for pool, code, enrollment in issued:
        if pool == "gift" and announced[code] != 1:
            yield f"the shop is to be told of {code} once, and is {announced[code]} times"
        if held.get(code, {enrollment}) != {enrollment}:
            yield f"{code} was issued to {enrollment}, and {sorted(held[code])} told of it"
    if unknown := held.keys() - {code for _, code, _ in issued}:
        yield f"nobody issued {sorted(unknown)}"
    [[claimed]] = world.query("SELECT count(*) FROM journeys.coupons WHERE pool = 'rare'")
    if claimed > limit or (without and claimed < 2):
        yield f"{claimed} of {limit} rare codes were claimed, and {without} went without"


def _tasks(world: World) -> Iterator[str]:
    """Each order that is large enough is packed by somebody, once; and whoever answers is rung up once at most."""
    told: Counter[str] = Counter()
    for record in (r for lane in read(world, "events") for r in lane):
        event = _decoded(record)
        if isinstance(event, Event) and event.source == JOURNEYS_SOURCE and event.name == TASK_OPENED:
            told[msgspec.json.decode(event.properties)["task_id"]] += 1
    rows = world.query("SELECT id::text, step, key FROM journeys.tasks")
    opened = Counter((step, key) for _, step, key in rows)
    wanted = {
        properties["order_id"]
        for said in _under_a_playbook(world)
        if said.event is not None
        and said.event.name == "Order Completed"
        and said.as_of - said.event.occurred_at <= timedelta(days=1)
        and (properties := msgspec.json.decode(said.event.properties))["total"] >= 40
    }
    for order in wanted | {key for step, key in opened if step == "pack"}:
        if opened["pack", order] != (order in wanted):
            yield f"{order} is to be packed {int(order in wanted)} times, and is {opened['pack', order]} times"
    for (step, key), count in opened.items():
        if step == "ring" and (count > 1 or not opened["pack", key]):
            yield f"{key} is rung up {count} times"
    if told != Counter(id for id, _, _ in rows):
        yield f"{told} was told of the tasks {opened}"


def _nights(world: World) -> Iterator[str]:
    """After the last night, whoever has spent more than p % of the buyers knows it, in all partitions, and at the end
    they are where that puts them."""
    lanes, told = read(world, "events"), read(world, "customers")
    said = [[_decoded(record) for record in lane] for lane in lanes]
    if [one.playbook for one in said[0] if isinstance(one, Activation)][-1:] != [variants()[RANKING].hash]:
        return
    last = [[one for one in lane if isinstance(one, CutOffs)][-1:] for lane in said]
    if not last[0] or last.count(last[0]) < world.history.partitions:
        yield f"the last night is told as {last}"
        return
    spent: Counter[str] = Counter()
    for lane, of_lane, came_out in zip(lanes, said, told, strict=True):
        counts = Counter(counted(lane, came_out))
        orders = {(e.source, e.id): e for e in of_lane if isinstance(e, Event) and e.name == "Order Completed"}
        for name, order in orders.items():
            spent[order.key] += counts[name] * msgspec.json.decode(order.properties)["total"]
    paid = sorted(spent[key] for key in +spent)
    reached = [100 * bisect_left(paid, amount) // len(paid) for amount in paid]
    amounts = [
        next(a for a, of_a in zip(paid, reached, strict=True) if of_a >= p)
        for p in range(1, max(reached, default=0) + 1)
    ]
    if ([*last[0][0].amounts], last[0][0].customers) != (amounts, len(paid)):
        yield f"{dict(spent)} have been spent, and the last night says {last[0][0]}"
    for key, state in world.query("SELECT key, state FROM segmenter.profiles"):
        profile = unpack_profile(state)
        percentile = reached[paid.index(spent[key])] if spent[key] else 0
        if profile.percentile != percentile or ("busy" in profile.segments) != (percentile >= 50):
            yield f"{key} is at {profile.percentile}, in {profile.segments}, and has spent more than {percentile} %"


def _under_a_playbook(world: World) -> Iterator[customers.CustomerUpdated]:
    """What customers did once there was a playbook."""
    for lane in read(world, "customers"):
        begun = False
        for record in lane:
            said = _customer(record.value)
            begun = begun or isinstance(said, customers.Activation)
            if begun and isinstance(said, customers.CustomerUpdated) and said.event is not None:
                yield said


def _decoded(record: Record) -> Any:
    found = _event(record.value)
    assert isinstance(found, Event | Refused | Activation | CutOffs)
    return found
