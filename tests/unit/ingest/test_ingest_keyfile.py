"""The file that says who may post."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.keyfile import KeyFileInvalid, Source, read_sources
from services.ingest.rates import Rate
from shared.security import hash_key

ONE, TWO = hash_key("one"), hash_key("two")


def problems(text: str) -> list[str]:
    with pytest.raises(KeyFileInvalid) as raised:
        read_sources(text, "sources.yaml")
    return str(raised.value).splitlines()


def test_a_key_leads_to_its_source() -> None:
    text = f"""
sources:
  - name: shop
    keys:
      - {ONE}      # the backend
      - "{TWO.upper()}"
  - {{name: no, keys: [{hash_key("three")}]}}
"""
    shop = Source("shop")
    assert read_sources(text, "sources.yaml") == {ONE: shop, TWO: shop, hash_key("three"): Source("no")}


def test_json_is_read_as_well() -> None:
    assert read_sources(json.dumps({"sources": [{"name": "shop", "keys": [ONE]}]}), "s.json") == {ONE: Source("shop")}


def test_a_hash_of_digits_only_is_a_hash() -> None:
    assert read_sources(f"sources: [{{name: '1', keys: [{'1' * 64}]}}]", "s") == {"1" * 64: Source("1")}


@pytest.mark.parametrize(
    ("fields", "rate"),
    [
        ("rate: 50", Rate(50, 500)),
        ("rate: 0.05", Rate(0.05, 1)),
        ("rate: '2.5', burst: 40", Rate(2.5, 40)),
        ("burst: 1, rate: 1000", Rate(1000, 1)),
    ],
)
def test_a_source_may_have_a_rate(fields: str, rate: Rate) -> None:
    text = f"sources: [{{name: shop, keys: [{ONE}, {TWO}], {fields}}}, {{name: app, keys: [{hash_key('three')}]}}]"
    shop = Source("shop", rate)
    assert read_sources(text, "s") == {ONE: shop, TWO: shop, hash_key("three"): Source("app")}


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ("rate: 0", "`rate` is events per second"),
        ("rate: -1", "`rate` is events per second"),
        ("rate: inf", "`rate` is events per second"),
        ("rate: [1]", "`rate` is events per second"),
        ("rate: ", "`rate` is events per second"),
        ("rate: 1, burst: 0.5", "`burst` is a number of events"),
        ("rate: 1, burst: lots", "`burst` is a number of events"),
        ("burst: 5", "`burst` stands beside a `rate`"),
    ],
)
def test_a_rate_that_is_none_is_refused(fields: str, wrong: str) -> None:
    (problem,) = problems(f"sources: [{{name: shop, keys: [{ONE}], {fields}}}]")
    assert wrong in problem


def test_every_problem_is_told_with_its_place() -> None:
    text = f"""sources:
  - name: Shop 1
    keys: [{ONE}]
  - name: app
    key: [{TWO}]
  - name: app
    keys: [{ONE}, not-a-hash]
"""
    assert problems(text) == [
        "sources.yaml:2:11: a source needs a `name` of up to 63 of a-z, 0-9, `.`, `_`, `-`. Name it.",
        "sources.yaml:5:5: unknown field `key`. Only `name`, `keys`, `rate` and `burst` may stand here.",
        "sources.yaml:4:5: `keys` needs a list with at least one entry. Add the hash of a write key.",
        "sources.yaml:6:11: the source `app` stands here a second time. Put its keys together.",
        "sources.yaml:7:12: this key is listed already, for `Shop 1`. Give each source its own.",
        "sources.yaml:7:78: this is no hash of a write key (64 hexadecimal digits). `rapport keys new` prints one.",
    ]


def test_a_key_written_in_the_clear_is_not_repeated_in_the_message() -> None:
    assert "my-secret-key" not in problems("sources: [{name: shop, keys: [my-secret-key]}]")[0]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", "sources.yaml:1:1: the file is empty"),
        ("[]", "sources.yaml:1:1: expected `sources`"),
        ("sources: []", "sources.yaml:1:10: `sources` needs a list"),
        ("sources:\n  shop: x", "sources.yaml:2:3: `sources` needs a list"),
        ("sources: [", "sources.yaml:2:1"),
        ("sources: [shop]", "sources.yaml:1:11: expected `name` and `keys`"),
        ("sources: [{name: rapport/mailer, keys: [x]}]", "sources.yaml:1:18: a source needs a `name`"),
        ("a: \x00", "sources.yaml"),
        ("[" * 5000, "sources.yaml"),
    ],
)
def test_what_is_no_file_of_sources_is_refused(text: str, place: str) -> None:
    assert problems(text)[0].startswith(place)


@given(st.text(max_size=200))
def test_no_text_raises_anything_else(text: str) -> None:
    with suppress(KeyFileInvalid):
        read_sources(text, "sources.yaml")
