"""Each night customers are ranked by what they have spent, in memory, too."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from segmenter_world import at, cut_offs, event, playbook

from services.backtest.shares import go_apart
from services.rehearsal.house import House
from shared.contracts.events import Event

OSLO = playbook(ranks=True, timezone="Europe/Oslo")
MIDNIGHT = datetime(2026, 3, 2, 23, tzinfo=UTC)


def order(moment: datetime, key: str, total: int) -> Event:
    return event("Order Completed", moment, key=key, total=total, currency="EUR")


def percentiles(house: House) -> dict[str, int | None]:
    return {key: profile.percentile for key, profile in house.profiles.items()}


def test_customers_are_ranked_at_midnight_in_the_shop() -> None:
    house = House(OSLO, at(-1))
    house.run([order(at(), "ann", 100), order(at(), "bob", 20), event("Page Viewed", at(), key="eve")])
    house.pass_to(MIDNIGHT - timedelta(microseconds=1))
    assert percentiles(house) == {"ann": None, "bob": None, "eve": None}
    house.pass_to(MIDNIGHT)
    assert percentiles(house) == {"ann": 50, "bob": 0, "eve": 0}
    house.run([order(MIDNIGHT, "bob", 500), order(MIDNIGHT, "max", 900)])
    assert percentiles(house) == {"ann": 50, "bob": 0, "eve": 0, "max": None}
    house.pass_to(MIDNIGHT + timedelta(days=1))
    assert percentiles(house) == {"ann": 0, "bob": 33, "eve": 0, "max": 66}


def test_where_what_happens_is_recorded_so_are_the_nights_and_when_the_sweep_came_by() -> None:
    house = House(None, at(-1), remembers=True, recorded=True)
    house.activate(OSLO)
    house.run([order(at(), "ann", 100), order(at(), "bob", 20)])
    house.pass_to(MIDNIGHT)
    assert percentiles(house) == {"ann": None, "bob": None}
    house.rank(cut_offs(MIDNIGHT, 15, 60))
    house.bring_up("ann")
    assert percentiles(house) == {"ann": 2, "bob": None}
    house.run([order(MIDNIGHT, "bob", 500)])
    assert percentiles(house) == {"ann": 2, "bob": 1}


def test_nobody_is_ranked_where_nothing_asks_for_it() -> None:
    house = House(playbook(), at(-1))
    house.run([order(at(), "ann", 100)])
    house.pass_to(at(9))
    assert percentiles(house) == {"ann": None}


def test_customers_who_are_ranked_among_all_are_simulated_together() -> None:
    assert not go_apart(OSLO)
    assert go_apart(playbook())
