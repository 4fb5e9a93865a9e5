"""What rules are made of a playbook, and of those before it that are still in use."""

from __future__ import annotations

from services.segmenter.rules import compile_rules
from shared.language import SHIPPED, load, read_folder


def test_what_an_older_journey_counts_is_kept_up_while_somebody_is_in_it() -> None:
    files = read_folder(SHIPPED)
    journey = "journeys/abandoned-cart.yaml"
    counting = files[journey].replace(b'count("Order Completed")', b'count("Product Viewed", within=90d)')
    older = load({**files, journey: counting})
    newer = load(files)
    (counted,) = older.journey_aggregates - newer.journey_aggregates
    alone = compile_rules(newer)
    assert counted not in alone.aggregates
    both = compile_rules(newer, [older])
    assert counted in both.aggregates
    assert counted in both.travelling
    assert both.aggregates[counted] in both.fed_by["Product Viewed"]
    assert both.definition.hash != alone.definition.hash
    assert both.conditions == alone.conditions
