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


def test_every_metric_of_an_alert_has_its_place_in_the_document() -> None:
    text = (ROOT / "docs/operating.md").read_text()
    for rule in RULES:
        for name in re.findall(r"rapport_[a-z_]+", rule["expr"]):
            assert name in text, rule["alert"]
