"""A counter of ours is scraped like prometheus-client's own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, generate_latest

from shared.telemetry import Tally


def test_a_tally_is_scraped_like_a_counter() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    tally = Tally("rapport_test_total", "What was counted", "code", ours)
    counter = Counter("rapport_test_total", "What was counted", ["code"], registry=theirs)
    for code, count in (("ok", 1), ("late", 3), ("ok", 2)):
        tally.add(count, code)
        counter.labels(code).inc(count)
    lines = generate_latest(theirs).decode().splitlines()
    assert generate_latest(ours).decode().splitlines() == [line for line in lines if "_created" not in line]
    assert 'rapport_test_total{code="ok"} 3.0' in lines
