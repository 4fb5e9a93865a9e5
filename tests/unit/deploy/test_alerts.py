"""The alerts name metrics that there are, and each has its page."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from prometheus_client import REGISTRY

from shared import telemetry

ROOT = Path(__file__).parents[3]
RULES = [rule for group in yaml.safe_load((ROOT / "deploy/prometheus/rules.yaml").read_text())["groups"]
         for rule in group["rules"]]  # fmt: skip


def test_every_metric_of_an_alert_exists() -> None:
    assert telemetry.HALTED
    kinds = {metric.name: metric.type for metric in REGISTRY.collect()}
    known = {name + "_total" if kind == "counter" else name for name, kind in kinds.items()}
    for rule in RULES:
        named = set(re.findall(r"rapport_[a-z_]+", rule["expr"]))
        assert named
        assert named <= known, rule["alert"]


def test_every_alert_names_its_page_which_names_its_metric() -> None:
    for rule in RULES:
        document, _, anchor = rule["annotations"]["page"].partition("#")
        parts = re.split(r"^###? (.+)\n", (ROOT / document).read_text(), flags=re.MULTILINE)
        pages = {title.lower().replace(" ", "-"): text for title, text in zip(parts[1::2], parts[2::2], strict=True)}
        for name in re.findall(r"rapport_[a-z_]+", rule["expr"]):
            assert name in pages[anchor], rule["alert"]


def test_an_alert_that_one_occurrence_is_to_ring_rings_at_the_first() -> None:
    """A series that begins at 1 has not increased, as Prometheus sees it."""
    for rule in RULES:
        for counter, span in re.findall(r"increase\((.+?)\[(\w+)\]\)\) > 0", rule["expr"]):
            assert f"({counter} unless {counter} offset {span}) > 0" in rule["expr"], rule["alert"]
