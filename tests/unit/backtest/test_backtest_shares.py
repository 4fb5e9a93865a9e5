"""Customers in shares that are simulated apart: whatever their number, the same is found as in one place."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from services.backtest.columns import read_mapping
from services.backtest.parts import Part, together
from services.backtest.processes import run_dry, worthwhile
from services.backtest.reading import History, Refusal
from services.backtest.shares import Share, addresses, go_apart, moved
from services.backtest.simulation import Reached, found, simulate
from services.rehearsal.coupons import PoolsByCause
from shared.contracts.events import Event
from shared.cores import cores
from shared.language.playbook import CouponPool, EventTrigger, Playbook, Set
from tests.simulation.playbooks import variants

BEGIN = datetime(2026, 3, 2, 12, tzinfo=UTC)
WHO: tuple[dict[str, Any], ...] = (
    *({"userId": name} for name in ("ann", "fay", "Åse", 42)),
    {"userId": "ann", "anonymousId": "visitor-1"},
    {"anonymousId": "visitor-1"},
    {"anonymousId": "visitor-2", "userId": None},
    {"userId": "undefined"},
    {"userId": True},
    {},
)
TRAITS: tuple[dict[str, Any], ...] = (
    {"email": "ann@example.com", "consent": {"*": True}},
    {"email": " Ann@Example.com"},
    {"email": "ANN@example.com", "consent": {"reminders": False, "thanks": False}},
    {"email": "ben@example.com", "first_name": "Ben"},
    {"email": "cai@example.com", "phone": "+47 90000000"},
    {"phone": "+4790000000", "push_token": "device", "consent": {"reminders": False}},
    {"push_token": "device", "email": None},
    {"birthday": "1990-03-05", "consent": {"greetings": True, "thanks": False}},
)


EVENTS = ("Product Added", "Product Added", "Product Removed", *["Order Completed"] * 3, "Unsubscribed")
VIEWED = "Product Viewed"
"""What begins the journey whose coupons run out."""
WRONG: tuple[dict[str, Any], ...] = ({"type": "tracks"}, {"type": "track"}, {"type": "identify", "traits": [1]})
DAYS = 12


def drawn(random: Random, most: int) -> list[tuple[int, Any]]:
    """What so many lines of a file say, each with a quarter of an hour."""
    lines: list[tuple[int, Any]] = []
    events = EVENTS if random.random() < 0.8 else (*EVENTS, VIEWED)
    for _ in range(random.randrange(most)):
        said: dict[str, Any] = {**random.choice(WHO), "messageId": random.choice((None, None, None, "m1", "m2"))}
        kind = random.random()
        if kind < 0.6:
            properties = {
                "product_id": random.choice(("p1", "p2")),
                "price": random.choice((10, 25.5)),
                "total": random.choice((12.1, 50, 0.3)),
                "currency": random.choice(("EUR", "NOK")),
                "order_id": random.choice(("o1", "o2", "o3", "o4")),
                "look": random.choice(("l1", "l2")),
                "topic": random.choice(("reminders", "thanks")),
            }
            said |= {"type": "track", "event": random.choice(events), "properties": properties}
        elif kind < 0.85:
            said |= {"type": "identify", "traits": random.choice(TRAITS)}
        elif kind < 0.95:
            said |= {"type": "identify", "context": {"traits": random.choice(TRAITS)}}
        else:
            said |= random.choice(WRONG)
        line = said if random.random() < 0.95 else random.choice(("nonsense", "[]", ""))
        lines.append((random.randrange(DAYS * 24 * 4), line))
    return lines


def written(path: Path, lines: Sequence[tuple[int, Any]]) -> Path:
    texts = []
    for quarter, said in lines:
        if isinstance(said, dict):
            said = json.dumps({**said, "timestamp": (BEGIN + quarter * timedelta(minutes=15)).isoformat()})
        texts.append(said)
    path.write_text("\n".join(texts) + "\n")
    return path


def in_one_place(playbooks: Sequence[Playbook], *paths: Path) -> Part:
    histories = [History(path, None, number) for number, path in enumerate(paths)]
    return found(simulate(playbooks, histories, lambda reached: None))


def apart(playbooks: Sequence[Playbook], of: int, *paths: Path) -> Part | None:
    """As the processes do it; None where a pool has run dry."""
    messages = (message for part in range(of) for path in paths for message in History(path).messages(part, of))
    elsewhere = moved(addresses(messages), of)
    shares = [Share(number, of, elsewhere) for number in range(of)]
    lived = [
        simulate(
            playbooks, [History(path, None, number, share) for number, path in enumerate(paths)], lambda read: None, 5
        )
        for share in shares
    ]
    end = max((one.findings.end for one, *_ in lived if one.findings.end is not None), default=None)
    for simulations in lived:
        for simulation in simulations:
            if end is not None:
                simulation.wait_until(end)
    if run_dry(playbooks, [Reached(0, [one.wanted for one in simulations]) for simulations in lived]):
        return None
    return together([found(simulations) for simulations in lived])


def as_json(part: Part) -> bytes:
    return msgspec.json.encode(part.comparison or part.reports[0])


def splittable() -> list[Playbook]:
    """Those that may follow each other in a simulated history, but for the one that ranks customers among all."""
    return [playbook for playbook in variants() if playbook.spend is None]


@pytest.mark.parametrize("seed", range(40))
def test_what_is_found_does_not_depend_on_how_many_find_it(tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    playbooks = random.sample(splittable(), random.choice((1, 2)))
    files = [drawn(random, 150), drawn(random, 60)][: random.choice((1, 2))]
    if random.random() < 0.5:
        for lines in files:
            lines.sort(key=lambda line: line[0])
    paths = [written(tmp_path / f"{number}.ndjson", lines) for number, lines in enumerate(files)]
    whole = in_one_place(playbooks, *paths)
    for of in (2, 3):
        part = apart(playbooks, of, *paths)
        assert (part is None) == any(report.coupons_missing for report in whole.reports)
        if part is not None:
            assert as_json(part) == as_json(whole)


def said(customer: str, hours: float, call: str, **fields: Any) -> tuple[int, dict[str, Any]]:
    return int(hours * 4), {"type": call, "userId": customer, **fields}


def test_a_no_of_one_customer_holds_in_another_share_for_who_has_the_same_address(tmp_path: Path) -> None:
    order = {"event": "Order Completed", "properties": {"order_id": "1", "total": 5, "currency": "EUR"}}
    lines = [
        said("ann", 0, "identify", traits={"email": "ann@example.com"}),
        said("fay", 1, "identify", traits={"email": " ANN@example.com", "consent": {"thanks": False}}),
        said("ann", 2, "track", **order),
        said("ann", 20, "track", event="Product Viewed"),
    ]
    path = written(tmp_path / "history.ndjson", lines)
    assert {Share(0, 2).has("ann", None), Share(0, 2).has("fay", None)} == {True, False}
    part = apart(variants()[:1], 2, path)
    assert part is not None
    (thanks,) = (one for one in part.reports[0].messages if one.message == "thanks")
    assert thanks.skipped == {"unsubscribed": 1}
    assert as_json(part) == as_json(in_one_place(variants()[:1], path))


def test_each_event_is_of_the_one_share_that_its_customer_is_in(tmp_path: Path) -> None:
    """However the line is written, and whatever stands in front of its ids."""
    odd = (
        '{"properties": {"userId": "fay"}, "userId": "ann", "type": "track", "event": "x"}',
        '{"userId": "fay", "userId": "ann", "type": "track", "event": "x"}',
        '{"\\u0075serId": "\\u0061nn", "type": "track", "event": "x"}',
        '{"anonymousId": "fay", "type": "track", "event": "x", "userId": "ann"}',
        '{"anonymousId": "ann", "type": "track", "event": "x", "userId": ""}',
        '{"anonymousId": 42.0, "type": "track", "event": "x", "userId": null}',
        '{"userId": 42, "type": "track", "event": "x", "unknown": {"userId": [[[]]]}}',
    )
    lines = [line[:-1] + ', "timestamp": "2026-03-02T12:00:00Z"}' for line in odd]
    path = tmp_path / "history.ndjson"
    path.write_text("\n".join(lines))
    for of in (1, 2, 3, 7):
        where: dict[str, set[int]] = {}
        events = [(number, one) for number in range(of) for one in History(path, None, 0, Share(number, of))]
        for number, event in events:
            assert isinstance(event, Event), event
            where.setdefault(event.key, set()).add(number)
        assert len(events) == len(lines)
        assert {key: len(numbers) for key, numbers in where.items()} == {"ann": 1, "42": 1}


@pytest.mark.parametrize("text", ["", "a\nbb\n\nccc\ndddd", "\n\na\n", "one long line alone"])
def test_each_line_is_in_one_part_of_a_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "history.ndjson"
    path.write_text(text)
    for of in range(1, 2 * len(text) + 2):
        assert "".join(line.decode() for part in range(of) for line in History(path).messages(part, of)) == text
        lines = [line.rstrip(b"\n") for part in range(of) for line in History(path).messages(part, of)]
        assert lines == path.read_bytes().splitlines()


def test_rows_of_a_table_go_where_their_customers_are(tmp_path: Path) -> None:
    table, mapping = tmp_path / "orders.csv", tmp_path / "mapping.yaml"
    mapping.write_text(
        "event: Order Completed\nuserId: {column: id, as: number}\nanonymousId: {column: visitor}\n"
        "timestamp: {column: at}\nproperties: {total: {column: total, as: number}}\n"
    )
    rows = ["id,visitor,at,total", *(f"{number},,2026-03-02,5" for number in (1, 2, 3, 4, 5, 1, 2))]
    rows += [",fay,2026-03-02,5", "x,,2026-03-02,5", "6,,2026-03-02,much", "7,too few", ",,2026-03-02,5"]
    table.write_text("\n".join(rows))
    columns = read_mapping(mapping)
    whole = sorted(map(msgspec.json.encode, History(table, columns)))
    parts = [list(History(table, columns, 0, Share(number, 3))) for number in range(3)]
    assert sorted(msgspec.json.encode(one) for part in parts for one in part) == whole
    keys = [{one.key for one in part if isinstance(one, Event)} for part in parts]
    assert sum(map(len, keys)) == len(set().union(*keys)) == 6


def test_what_ends_a_file_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "history.ndjson.gz"
    path.write_bytes(gzip.compress(b'{"userId": "ann"}\n' * 1_000)[:-20])
    told = [one for number in range(3) for one in History(path, None, 0, Share(number, 3))]
    codes = Counter(one.code for one in told if isinstance(one, Refusal))
    assert codes["invalid_gzip"] == 1


def test_a_playbook_that_gives_addresses_itself_is_not_split() -> None:
    playbook = variants()[0]
    assert go_apart(playbook)
    journey = playbook.journeys["cart"]
    assert isinstance(journey.trigger, EventTrigger)
    assert journey.trigger.key is not None
    steps = {**journey.steps, "address": Set("address", None, {}, {"email": journey.trigger.key})}
    changed = {"cart": msgspec.structs.replace(journey, steps=steps)}
    assert not go_apart(msgspec.structs.replace(playbook, journeys=changed))


def test_which_code_somebody_gets_does_not_depend_on_who_came_before() -> None:
    for pool in (
        CouponPool("ten", "Ten", "TEN-", 8, 5, None),
        CouponPool("list", "List", "", 0, None, None, ("a", "b", "c", "d", "e")),
    ):
        causes = ["ann code", "fay code", "cai code"]
        one, other = PoolsByCause(), PoolsByCause()
        forth = [one.take(pool, cause) for cause in causes]
        back = [other.take(pool, cause) for cause in reversed(causes)]
        assert forth == back[::-1]
        assert [one.take(pool, "more") is None for _ in range(3)] == [False, False, True]


def test_a_short_history_stays_in_one_process(tmp_path: Path) -> None:
    """Files with holes: they are long, and take no room."""
    files = {}
    for name, megabytes in (("short", 20), ("long", 40)):
        path = tmp_path / name
        with path.open("wb") as file:
            file.truncate(megabytes << 20)
        files[name] = History(path)
    assert worthwhile([files["short"]]) == 1
    assert worthwhile([files["long"]]) == worthwhile([files["short"], files["short"]]) == min(2, cores())
