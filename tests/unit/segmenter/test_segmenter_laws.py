"""What holds for whatever happens: batches do not matter, shortcuts give what asking everything would give."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from segmenter_world import START, Road, activation, at, birthday, event, identify, playbook

from services.segmenter import consent, history
from services.segmenter.batch import Memo
from services.segmenter.profile import apply, pass_time, reach_date
from services.segmenter.rules import Rules
from services.segmenter.store import pack_profile
from shared.contracts.events import Event, EventRecord
from shared.language.expressions import Scope
from shared.language.playbook import Playbook

SEGMENTS = {
    "vip": 'sum("Order Completed", "total", within=20d) >= 100',
    "big-spenders": 'max("Order Completed", "total") > 80',
    "lapsed": 'count("Order Completed") >= 1 and count("Order Completed", within=10d) == 0',
    "away": "days_since(customer.last_seen) > 5",
    "new": "days_since(customer.first_seen) < 3",
    "nordic": 'traits.country in ["NO", "SE"]',
    "nordic-vip": 'in_segment("vip") and in_segment("nordic")',
    "readers": 'consented("newsletter")',
    "loyal": 'customer.stage == "delight" and not in_segment("away")',
    "lamps": 'count("Product Added", where=event.category == "lamps", within=4d) >= 2',
    "recent": 'days_since(last("Order Completed")) <= 2.5',
    "cooling": 'days_since(last("Order Completed")) > 1.5 * median_gap("Order Completed")',
    "regular": 'median_gap("Order Completed", within=30d) <= 4',
    "rug-gazers": '"rugs" in list("Product Added", "category", within=8d)',
    "speaks-norwegian": 'starts_with(customer.locale, "nb")',
    "beginners": 'count("Order Completed") == 1 and count("Order Completed", within=10d) == 1',
    "window-shoppers": 'count("Product Added", within=5d) >= 2 and count("Order Completed") == 0',
    "back-again": 'count("Product Added", within=4d) != 1 and 2 <= count("Order Completed") and count("Moved") < 2',
}
USUAL = playbook(segments=SEGMENTS, dates={"birthday": birthday()}, carts="derived", name="usual")
EDITED = playbook(
    segments={
        **{name: when for name, when in SEGMENTS.items() if name != "lamps"},
        "vip": 'sum("Order Completed", "total", within=20d) >= 50',
        "movers": 'exists("Moved")',
    },
    dates={"birthday": birthday("10:00"), "name-day": birthday(trait="name_day")},
    carts="derived",
    name="edited",
)


@dataclass(frozen=True)
class Pass:
    """Time goes on, and nothing happens."""

    to: datetime


Happening = EventRecord | Pass

keys = st.sampled_from(["ann", "bob"])
gaps = st.sampled_from([timedelta(), timedelta(hours=1), timedelta(days=1), timedelta(days=4), timedelta(days=9)])
delays = st.sampled_from([timedelta(), timedelta(), timedelta(), timedelta(hours=2), timedelta(days=6)])
happenings = st.sampled_from(
    ["order", "order", "add", "add", "remove", "view", "move", "identify", "consent", "switch", "again", "pass", "pass"]
)
values = st.integers(0, 9)


@st.composite
def stories(draw: st.DrawFn) -> list[Happening]:
    """A road: events of two customers, late ones, duplicates, switches of playbooks, and time that passes."""
    story: list[Happening] = []
    now = START
    for number in range(draw(st.integers(1, 25))):
        now += draw(gaps)
        key, what, n = draw(keys), draw(happenings), draw(values)
        occurred = now - draw(delays)
        common: dict[str, Any] = {"key": key, "received": now, "id": f"e{number}"}
        if what == "order":
            story.append(event("Order Completed", occurred, total=12.5 * n, currency="EUR", **common))
        elif what == "add":
            category = ["lamps", "rugs"][n % 2]
            context = {"locale": ["nb-NO", "en"][n % 2]}
            story.append(
                event("Product Added", occurred, category=category, product_id=n, price=n, context=context, **common)
            )
        elif what == "remove":
            story.append(event("Product Removed", occurred, product_id=n, **common))
        elif what == "view":
            story.append(event("Page Viewed", occurred, **common))
        elif what == "move":
            story.append(event("Moved", occurred, **common))
        elif what == "identify":
            traits = [
                {"country": "NO", "birthday": "1990-03-09", "timezone": "Asia/Tokyo"},
                {"country": "DK", "birthday": "1990-04-01", "name_day": "--03-20"},
                {"country": None, "birthday": None, "timezone": "America/New_York"},
                {"consent": {"newsletter": True}},
            ]
            story.append(identify(occurred, **common, **traits[n % 4]))
        elif what == "consent":
            name = ["Topic Subscribed", "Topic Unsubscribed", "Unsubscribed"][n % 3]
            story.append(event(name, occurred, topic="newsletter", **common))
        elif what == "switch":
            story.append(activation([USUAL, EDITED][n % 2], now))
        elif what == "again":
            if story and not isinstance(story[n % len(story)], Pass):
                story.append(story[n % len(story)])
        else:
            story.append(Pass(now))
    return story


def live(story: list[Happening], cuts: list[bool], first: Playbook = USUAL) -> Road:
    """Play a story in batches that end where `cuts` say so (cycled)."""
    road = Road(USUAL, EDITED)
    batch: list[EventRecord] = []
    for number, happening in enumerate(story):
        if isinstance(happening, Pass):
            road.take(*batch, until=happening.to)
            batch = []
            continue
        batch.append(happening)
        if cuts and cuts[number % len(cuts)]:
            road.take(*batch)
            batch = []
    if batch:
        road.take(*batch)
    return road


@settings(max_examples=150, deadline=None)
@given(stories(), st.lists(st.booleans(), max_size=8))
def test_batches_make_no_difference(story: list[Happening], cuts: list[bool]) -> None:
    one_by_one, some = live(story, [True]), live(story, cuts)
    assert some.emitted == one_by_one.emitted
    assert some.packed == one_by_one.packed
    assert some.rows == one_by_one.rows
    assert some.timers == one_by_one.timers
    assert some.letters == one_by_one.letters
    assert some.memo == one_by_one.memo
    assert (some.processed, some.deduplicated) == (one_by_one.processed, one_by_one.deduplicated)


def test_playbooks_that_change_within_a_batch_make_no_difference() -> None:
    story: list[Happening] = [
        event("Moved", at(), id="m1"),
        event("Product Added", at(), id="p1", category="lamps"),
        activation(EDITED, at(1)),
        event("Product Added", at(1), id="p2", category="lamps"),
        activation(USUAL, at(2)),
        event("Page Viewed", at(2), id="v1"),
        activation(EDITED, at(3)),
        event("Page Viewed", at(3), id="v2"),
    ]
    for earlier in range(len(story)):
        cuts = [number == earlier for number in range(len(story))]
        one_by_one, some = live(story, [True]), live(story, cuts)
        assert some.emitted == one_by_one.emitted
        assert some.packed == one_by_one.packed
    assert [u.entered for u in one_by_one.updates if u.cause == "definition"] == [("movers",), ("lamps",), ("movers",)]


@settings(max_examples=150, deadline=None)
@given(stories())
def test_asking_only_what_an_event_can_change_equals_asking_everything(story: list[Happening]) -> None:
    road = Road(USUAL, EDITED)
    for happening in story:
        if isinstance(happening, Pass):
            road.pass_to(happening.to)
        else:
            road.take(happening)
        road.pass_to(road.as_of)
        playbook_in_force = _in_force(road)
        for key in road.packed:
            if road.profile(key).definition == road.rules[playbook_in_force].definition.hash:
                assert (road.profile(key).stage, set(road.profile(key).segments)) == _asked_everything(
                    road, key, road.rules[playbook_in_force]
                )


LEAVES = [
    'count("Order Completed") {compared} {n}',
    'count("Order Completed", within={days}d) {compared} {n}',
    'count("Product Added", where=event.category == "lamps", within={days}d) {compared} {n}',
    'sum("Order Completed", "total", within={days}d) {compared} {n}0',
    'avg("Order Completed", "total") {compared} {n}0',
    'max("Order Completed", "total", within={days}d) {compared} {n}0',
    'exists("Moved", within={days}d)',
    'last("Product Added", "category", within={days}d) == "rugs"',
    'days_since(last("Order Completed")) {compared} {days}',
    'days_since(first("Page Viewed", within={days}d)) {compared} {n}',
    "days_since(customer.last_seen) {compared} {n}",
    "days_since(customer.first_seen) {compared} {days}",
    'traits.country == "NO"',
    "traits.birthday != null",
    'starts_with(customer.locale, "nb")',
    'customer.timezone == "Asia/Tokyo"',
    'consented("newsletter")',
]


@st.composite
def conditions(draw: st.DrawFn, before: list[str]) -> str:
    """Leaves joined at random; some ask for a segment that was defined before, or for the stage."""
    asking = [*LEAVES, *(f'in_segment("{name}")' for name in before)]
    if before:
        asking.append('customer.stage == "second"')
    drawn = []
    for leaf in draw(st.lists(st.sampled_from(asking), min_size=1, max_size=3)):
        compared = draw(st.sampled_from(["<", "<=", ">", ">="]))
        text = leaf.format(compared=compared, n=draw(st.integers(0, 4)), days=draw(st.integers(1, 12)))
        drawn.append(f"not ({text})" if draw(st.booleans()) else text)
    return draw(st.sampled_from([" and ", " or "])).join(drawn)


@st.composite
def playbooks(draw: st.DrawFn) -> Playbook:
    segments: dict[str, str] = {}
    for number in range(draw(st.integers(1, 5))):
        segments[f"s{number}"] = draw(conditions(list(segments)))
    stages = {name: draw(conditions([])) for name in ("first", "second")}
    return playbook(stages | {"third": "true"}, segments, carts=draw(st.sampled_from(["derived", "sent"])), name="any")


@settings(max_examples=150, deadline=None)
@given(playbooks(), stories(), st.lists(st.integers(0, 12 * 24), min_size=1, max_size=5))
def test_whatever_a_playbook_asks_it_is_answered_as_if_asked_at_every_moment(
    drawn: Playbook, story: list[Happening], later: list[int]
) -> None:
    road = Road(drawn)
    happenings = [one for one in story if isinstance(one, Event | Pass)]
    end = max((one.to if isinstance(one, Pass) else one.received_at for one in happenings), default=START)
    for happening in [*happenings, *(Pass(end + timedelta(hours=sum(later[: n + 1]))) for n in range(len(later)))]:
        if isinstance(happening, Event):
            road.take(happening)
        road.pass_to(happening.to if isinstance(happening, Pass) else road.as_of)
        for key in road.packed:
            answered = road.profile(key).stage, set(road.profile(key).segments)
            assert answered == _asked_everything(road, key, road.rules["any"])


@settings(max_examples=50, deadline=None)
@given(stories())
def test_profile_that_was_given_is_left_as_it_was(story: list[Happening]) -> None:
    """What a batch computed can be dropped: nothing in memory has changed."""
    rules = Road(USUAL).rules["usual"]
    profile, now = None, START
    for one in story:
        if isinstance(one, Event):
            now = max(now, one.received_at)
            before = pack_profile(profile)
            after, _ = apply(profile, one, rules, now)
            assert pack_profile(profile) == before
            profile = after
    if profile is not None:
        before = pack_profile(profile)
        pass_time(profile, "ann", rules, now + timedelta(days=40))
        reach_date(profile, "ann", rules, "birthday", now + timedelta(days=400))
        assert pack_profile(profile) == before


@settings(max_examples=100, deadline=None)
@given(stories())
def test_history_tells_every_aggregate_again(story: list[Happening]) -> None:
    road = live(story, [])
    road.take(activation(EDITED, road.as_of))
    road.sweep()
    rules = road.rules["edited"]
    for key in road.packed:
        mine = sorted((row for row in road.rows if row.customer == key), key=lambda row: row[1:4])
        rebuilt = history.rebuild({}, rules.fed_by, mine)
        told = _told(road, key, rules, road.profile(key).aggregates)
        assert told == _told(road, key, rules, rebuilt)


@settings(max_examples=100, deadline=None)
@given(stories())
def test_birthday_comes_at_most_once_for_each_occasion(story: list[Happening]) -> None:
    road = live(story, [True])
    road.pass_to(road.as_of + timedelta(days=800))
    reached = [(row.customer, row.name, row.id) for row in road.rows if row.kind == history.Kind.DATE]
    assert len(reached) == len(set(reached))


@settings(max_examples=100, deadline=None)
@given(stories())
def test_every_event_is_in_history_or_counted_as_a_duplicate_or_set_aside(story: list[Happening]) -> None:
    road = live(story, [])
    events = [one for one in story if isinstance(one, Event)]
    kept = [row for row in road.rows if row.kind == history.Kind.EVENT]
    assert len(kept) == road.processed
    assert road.processed + road.deduplicated + len(road.letters) == len(events)


def _in_force(road: Road) -> str:
    return msgspec.msgpack.decode(road.memo, type=Memo).playbook


def _scope(road: Road, key: str, rules: Rules, aggregates: dict[str, Any]) -> Scope:
    profile = road.profile(key)
    return Scope(
        now=road.as_of,
        traits=profile.traits,
        customer={
            "key": key,
            "first_seen": profile.first_seen,
            "last_seen": profile.last_seen,
            "locale": profile.locale,
            "timezone": profile.timezone,
        },
        aggregates=aggregates,
        consented=lambda topic: consent.consented(profile.consent, rules.topics, topic),
        currency=rules.currency,
        rates=rules.rates,
    )


def _asked_everything(road: Road, key: str, rules: Rules) -> tuple[str, set[str]]:
    """Stage and segments by asking every condition, in the order in which they read each other."""
    scope = _scope(road, key, rules, road.profile(key).aggregates)
    stage, members = "", set[str]()
    for condition in rules.conditions:
        scope.customer = {**scope.customer, "stage": stage}
        scope.segments = members
        if condition.segment is None:
            stage = next((one.name for one, _ in condition.stages if one.when.truth(scope)), "")
        elif condition.segment.truth(scope):
            members = {*members, condition.name}
    return stage, members


def _told(road: Road, key: str, rules: Rules, aggregates: dict[str, Any]) -> tuple[str, set[str]]:
    scope = _scope(road, key, rules, aggregates)
    conditions = [
        (condition.name, one)
        for condition in rules.conditions
        for one in ([condition.segment] if condition.segment else [stage.when for stage, _ in condition.stages])
    ]
    return "", {f"{name}:{one.source}" for name, one in conditions if one.truth(scope)}


def test_law_has_something_to_say() -> None:
    """The stories do reach flips by time; otherwise the laws would hold for nothing."""
    road = Road(USUAL, EDITED)
    road.take(event("Order Completed", at(), total=120, currency="EUR"))
    road.pass_to(at(30))
    assert {name for update in road.updates for name in update.left} >= {"vip", "new", "recent"}
    assert {name for update in road.updates for name in update.entered} >= {"away", "lapsed"}
